//! `cargo workshop catch-up`: on with the room.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::hint;
use crate::mine::Mine;
use crate::step::Step;
use crate::terminal::say;

/// Up to where.
#[derive(Args)]
pub struct Options {
    /// The step whose source mine/ gets, such as 05
    step: Step,
}

/// Replaces the source and keeps the participant's.
pub fn run(options: &Options) -> Result<ExitCode> {
    let root = crate::root()?;
    let mine = Mine::find(&root)?;
    let step = options.step;
    let kept = mine.replace_source(&root, step)?;
    mine.set_task(step.next().unwrap_or(step))?;
    say(format_args!("mine/ is at step {} now", step.number()));
    if let Some(kept) = kept {
        say(format_args!("what you had is in {kept}"));
    }
    if let Some(next) = step.next() {
        say("");
        hint::begin(&mine, next)?;
    }
    Ok(ExitCode::SUCCESS)
}
