//! `cargo workshop hint`: the task of a step and, piece by piece, help.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::diff;
use crate::mine::Mine;
use crate::step::Step;
use crate::terminal::{FAINT, STRONG, say, styled, width};

/// For which step.
#[derive(Args)]
#[command(after_help = "The first time it says what the task is, then one \
more hint each time; the last one shows the answer: what your source lacks.")]
pub struct Options {
    /// Such as 03 [default: the one that you are working on]
    step: Option<Step>,
    /// Begin again with the task
    #[arg(long)]
    again: bool,
}

/// A step's text: its task, and under every heading of the second level a
/// hint. Step 1 is where everybody starts.
const TEXTS: [&str; 7] = [
    "# Step 1: fork, exec, wait\n\nThis is where mine/ starts.\n",
    include_str!("../tasks/02.md"),
    include_str!("../tasks/03.md"),
    include_str!("../tasks/04.md"),
    include_str!("../tasks/05.md"),
    include_str!("../tasks/06.md"),
    include_str!("../tasks/07.md"),
];

/// Shows the next piece.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mine = Mine::find(&crate::root()?)?;
    let step = options.step.map_or_else(|| mine.task(), Ok)?;
    let seen = if options.again { 0 } else { mine.hints_seen(step) };
    let hints: Vec<&str> = hints(step).collect();
    match seen.checked_sub(1).map(|at| hints.get(at)) {
        None => show_task(step),
        Some(Some(hint)) => show(&format!("{seen}. {hint}")),
        Some(None) => {
            say(styled(STRONG, "The answer: what mine/ lacks"));
            say("");
            diff::from_mine(step)?;
        }
    }
    mine.set_hints_seen(step, (seen + 1).min(hints.len() + 1))?;
    say("");
    let next = match hints.len().checked_sub(seen) {
        None => format!(
            "`cargo workshop catch-up {:02}` puts it into mine/",
            step.number()
        ),
        Some(0) => "`cargo workshop hint` again: the answer".to_owned(),
        Some(1) => "`cargo workshop hint` again: the last hint".to_owned(),
        Some(more) => format!("`cargo workshop hint` again: {more} hints more"),
    };
    say(styled(FAINT, format!("next: {next}")));
    Ok(ExitCode::SUCCESS)
}

/// Shows what is to be done in a step; a hint is what comes next.
pub fn begin(mine: &Mine, step: Step) -> Result<()> {
    show_task(step);
    mine.set_hints_seen(step, 1)
}

fn show_task(step: Step) {
    show(text(step).split("\n## ").next().unwrap_or_default());
}

fn text(step: Step) -> &'static str {
    TEXTS[step.number() - 1]
}

fn hints(step: Step) -> impl Iterator<Item = &'static str> {
    text(step).split("\n## ").skip(1)
}

/// Text with a headline, filled to the width of a page.
fn show(text: &str) {
    let (headline, rest) = text.split_once('\n').unwrap_or((text, ""));
    say(styled(STRONG, headline.trim_start_matches("# ")));
    for paragraph in rest.trim().split("\n\n") {
        say("");
        for line in textwrap::wrap(paragraph, width().min(78)) {
            say(line);
        }
    }
}
