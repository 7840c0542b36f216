//! `cargo workshop start`: a crate of one's own, and the first task.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::hint;
use crate::mine::Mine;
use crate::terminal::say;

/// There is nothing to choose.
#[derive(Args)]
pub struct Options {}

/// Makes it.
pub fn run(_: &Options) -> Result<ExitCode> {
    let root = crate::root()?;
    let mine = Mine::make(&root)?;
    say("made mine/, your own container, from the first step: it runs a");
    say("command and isolates nothing yet. Try it:");
    say("");
    say("  cd mine");
    say("  cargo run -- run echo hello");
    say("");
    hint::begin(&mine, mine.task()?)?;
    say("");
    say("Your code is in mine/src/main.rs. Then:");
    say("");
    say("  cargo workshop check     what it isolates and what it leaks");
    say("  cargo workshop hint      when you are stuck");
    Ok(ExitCode::SUCCESS)
}
