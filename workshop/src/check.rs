//! `cargo workshop check`: what a container isolates, and what it leaks.

mod section;
mod target;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use nix::unistd::Uid;
use suite::judge::{Judge, Word};
use suite::property::Property;
use suite::{Caller, PROPERTIES, Verdict};

use self::target::Target;
pub use self::watch::Watch;
use crate::hint;
use crate::step::Step;
use crate::terminal::{BAD, FAINT, GOOD, STRONG, complain, say, styled, width};

/// What to check, and against what.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo workshop check                       mine/, up to where you are
  cargo workshop check --watch               again whenever you save
  cargo workshop check 05 --bin ./container  any program, in any language

A program keeps a small contract: `PROGRAM run CMD ARGS…`, started in a
directory that holds ./fs, the root file system. Here ./fs is made for it.

Exit status: 0 when everything holds that the step is to isolate, 1 when
something leaks.")]
pub struct Options {
    /// Such as 05 [default: the one that you are working on; 07 with --bin]
    step: Option<Step>,
    /// A program of your own instead of mine/
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,
    /// Check again whenever the program changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// No more is said of what was left behind.
const LEFT_SHOWN: usize = 5;

/// As a shell has it: 128 and SIGINT's number.
const INTERRUPTED: u8 = 130;

/// Checks it, once or again and again.
pub fn run(options: &Options) -> Result<ExitCode> {
    let target = Target::choose(options.bin.as_deref())?;
    let watch = Watch::begin()?;
    loop {
        let state = target.state();
        let result = check(&target, options.step, &watch);
        if watch.is_over() {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        if !options.watch {
            return Ok(match result? {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            });
        }
        if let Err(error) = result {
            complain(&error);
        }
        let name = target.watched();
        say("");
        say(styled(FAINT, format!("watching {name}; Ctrl-C ends")));
        while target.state() == state {
            if watch.rest() {
                return Ok(ExitCode::from(INTERRUPTED));
            }
        }
        // A compiler or an editor may still be writing.
        let mut state = target.state();
        while !watch.rest() && target.state() != state {
            state = target.state();
        }
        say("");
    }
}

/// One line a property; says whether all hold that should.
fn check(target: &Target, step: Option<Step>, watch: &Watch) -> Result<bool> {
    let step = step.map_or_else(|| target.step(), Ok)?;
    let program = target.program()?;
    let whom = match Caller::own() {
        Caller::Root => "root",
        Caller::User if Uid::effective().is_root() => {
            "root without CAP_SYS_ADMIN"
        }
        Caller::User => "an ordinary user",
    };
    say(format_args!("{target} as {step}, run by {whom}"));
    say("");
    let mut judge = Judge::begin(&program, step.number())?;
    watch.guard(Some(judge.process()));
    let result = show_all(&mut judge, step);
    watch.guard(None);
    if watch.is_over() {
        return Ok(false);
    }
    let (tally, left) = result?;
    drop(judge);
    if !left.is_empty() {
        say("");
        say("left on the host, and cleaned up after:");
        let shown = left.iter().take(LEFT_SHOWN);
        shown.for_each(|what| say(format_args!("  {what}")));
        if let Some(more @ 1..) = left.len().checked_sub(LEFT_SHOWN) {
            say(format_args!("  and {more} more"));
        }
    }
    summarise(&tally, step, target)?;
    Ok(tally.failed == 0)
}

/// How many rows hold, and how many should and do not.
#[derive(Default)]
struct Tally {
    held: usize,
    failed: usize,
    runs: bool,
}

fn show_all(judge: &mut Judge, step: Step) -> Result<(Tally, Vec<String>)> {
    let mut tally = Tally { runs: true, ..Tally::default() };
    let mut left = Vec::new();
    let mut shown = 0;
    while let Some(word) = judge.hear()? {
        match word {
            Word::RunsNothing(seen) => {
                tally.runs = false;
                failed("fails", "it runs no command");
                explain("seen", &seen);
                explain("expected", "`PROGRAM run CMD ARGS…` runs CMD.");
                explain("book", section::FIRST);
            }
            Word::Row { row, verdict, seen } => {
                show_later(&PROPERTIES[shown..row], step);
                shown = row + 1;
                show(&PROPERTIES[row], verdict, &seen);
                match verdict {
                    Some(Verdict::Holds) => tally.held += 1,
                    _ => tally.failed += 1,
                }
            }
            Word::Left(what) => left.push(what),
        }
    }
    for property in &PROPERTIES[shown..] {
        if property.of(step.number()) == Verdict::Holds {
            tally.failed += 1;
            failed("unseen", property.name);
        } else {
            show_later(std::slice::from_ref(property), step);
        }
    }
    let groups = judge.groups_left();
    left.extend(
        groups.iter().map(|dir| format!("a cgroup: {}", dir.display())),
    );
    Ok((tally, left))
}

fn show(property: &Property, verdict: Option<Verdict>, seen: &str) {
    let word = match verdict {
        Some(Verdict::Holds) => {
            let sign = styled(GOOD, "✓ holds ");
            say(format_args!("{sign} {}", property.name));
            return;
        }
        Some(Verdict::Leaks) => "leaks",
        None => "unseen",
    };
    failed(word, property.name);
    explain("seen", seen);
    explain("expected", property.sentence);
    if let Some(place) = section::of(property.name) {
        explain("book", place);
    }
}

fn failed(word: &str, name: &str) {
    let sign = styled(BAD, format!("✗ {word:6}"));
    say(format_args!("{sign} {}", styled(STRONG, name)));
}

fn explain(what: &str, text: &str) {
    let options = textwrap::Options::new(width())
        .initial_indent("         ")
        .subsequent_indent("           ");
    for line in textwrap::wrap(&format!("{what}: {text}"), options) {
        say(line);
    }
}

fn show_later(properties: &[Property], step: Step) {
    for property in properties {
        let when = Step::all()
            .filter(|later| *later > step)
            .find(|later| property.of(later.number()) == Verdict::Holds)
            .map_or("beyond the seven steps".to_owned(), |later| {
                format!("in {later}")
            });
        say(styled(FAINT, format!("· later  {}, {when}", property.name)));
    }
}

fn summarise(tally: &Tally, step: Step, target: &Target) -> Result<()> {
    let Tally { held, failed, .. } = tally;
    let number = PROPERTIES.len();
    say("");
    let style = if *failed == 0 { GOOD } else { BAD };
    let line = styled(style, format!("{step}: {held} of {number} hold"));
    if *failed > 0 {
        say(format_args!("{line}, {failed} should and do not"));
        target.say_what_helps(tally.runs);
        return Ok(());
    }
    say(format_args!("{line}, all that {step} is to isolate"));
    match (target.mine(), step.next()) {
        (Some(mine), Some(next)) if mine.task().ok() == Some(step) => {
            say("");
            mine.set_task(next)?;
            hint::begin(mine, next)?;
        }
        (_, Some(next)) => target.say_on_to(next),
        (_, None) => {}
    }
    Ok(())
}
