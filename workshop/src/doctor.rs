//! `cargo workshop doctor`: tries what this machine allows, and says which
//! steps will run here.

mod check;
mod host;
mod limits;
mod trial;

use std::os::fd::RawFd;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use serde_json::{Map, Value, json};
use signal_hook::consts::signal::SIGCHLD;

use self::check::{Check, Report};
use self::trial::Trial;
use crate::step::Step;
use crate::terminal::{BAD, FAINT, GOOD, STRONG, say, styled};

/// For whom.
#[derive(Args)]
#[command(after_help = "\
Everything is tried in processes that are gone afterwards, with whatever they
made. Run it where you will run the steps, and as who you will be then.

The status is 0 when all seven steps run here, else 1.

Examples:
  cargo workshop doctor
  cargo workshop doctor --json | jq '.steps | map_values(.ok)'")]
pub struct Options {
    /// Print one JSON object, for those who collect them
    #[arg(long)]
    json: bool,
    /// Do this trial and nothing else
    #[arg(long = "try", value_enum, hide = true)]
    trial: Option<Trial>,
    /// The process that started this one
    #[arg(long, hide = true, requires = "trial")]
    launcher: Option<String>,
    /// An open file to join a control group with
    #[arg(long, hide = true, requires = "launcher")]
    join: Vec<RawFd>,
}

/// Examines this machine.
pub fn run(options: &Options) -> Result<ExitCode> {
    if let Some(trial) = options.trial {
        let launcher = options.launcher.as_deref();
        return Ok(trial::run(trial, launcher, &options.join));
    }
    let report = without_interruption(check::all)?;
    if options.json {
        say(as_json(&report));
    } else {
        show(&report);
    }
    let all = Step::all().all(|step| report.in_the_way(step).is_none());
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A Ctrl-C has to wait, so that nothing stays behind. And whoever ignores
/// SIGCHLD, as our caller may, is never told how a process has ended.
fn without_interruption<T>(work: impl FnOnce() -> T) -> Result<T> {
    signal_hook::flag::register(SIGCHLD, Arc::default())
        .context("cannot catch SIGCHLD")?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        signals.add(signal);
    }
    let before = signals
        .thread_swap_mask(SigmaskHow::SIG_BLOCK)
        .context("cannot block signals")?;
    let result = work();
    before.thread_set_mask().context("cannot unblock signals")?;
    Ok(result)
}

fn as_json(report: &Report) -> Value {
    let checks: Map<_, _> = report
        .checks
        .iter()
        .map(|check| {
            let value = json!({
                "ok": check.ok,
                "why": check.why,
                "cause": check.cause,
                "hint": check.hint,
            });
            (check.name.clone(), value)
        })
        .collect();
    let steps: Map<_, _> = Step::all()
        .map(|step| {
            let first = report.in_the_way(step);
            let value = json!({
                "ok": first.is_none(),
                "needs": first.map(|check| &check.name),
                "hint": first.and_then(|check| check.hint.as_ref()),
            });
            (step.to_string(), value)
        })
        .collect();
    json!({
        "host": report.host.to_json(),
        "checks": checks,
        "steps": steps,
    })
}

fn show(report: &Report) {
    for group in report.checks.chunk_by(|a, b| a.group == b.group) {
        say(styled(STRONG, group[0].group));
        for checks in group.chunk_by(|a, b| !a.tried && a.why == b.why) {
            show_checks(checks);
        }
    }
    say(styled(STRONG, "steps"));
    let mut steps: Vec<(Vec<Step>, Option<&Check>)> = Vec::new();
    for step in Step::all() {
        let first = report.in_the_way(step);
        let name = |check: Option<&Check>| check.map(|it| it.name.clone());
        match steps.last_mut() {
            Some((same, known)) if name(*known) == name(first) => {
                same.push(step);
            }
            _ => steps.push((vec![step], first)),
        }
    }
    for (steps, first) in &steps {
        let numbers = range(steps);
        let one = steps.len() == 1;
        match first {
            None => {
                let runs = if one { "runs here" } else { "run here" };
                line(Some(true), &numbers, runs);
            }
            Some(check) => {
                let needs = if one { "needs" } else { "need" };
                let what = check.in_a_sentence();
                let what = format!("{needs} {what}: {}", check.remedy());
                line(Some(false), &numbers, &what);
            }
        }
    }
    say("");
    say(next(&steps, report.host.user_mode));
}

/// One of them, or all that could not be tried for the same reason.
fn show_checks(checks: &[Check]) {
    let check = &checks[0];
    let title = check.title;
    match (&check.hint, check.ok == Some(false), check.needed) {
        _ if !check.tried => {
            let titles: Vec<_> = checks.iter().map(|it| it.title).collect();
            let sign = styled(FAINT, "–");
            say(format_args!("  {sign} {}: {}", titles.join(", "), check.why));
        }
        (Some(hint), true, false) if check.group == "tools" => {
            line(None, title, &format!("{}: {hint}", check.why));
        }
        (_, true, false) => {
            let why = format!("not needed by root, and refused: {}", check.why);
            line(None, title, &why);
        }
        (Some(hint), true, true) => {
            line(check.ok, title, &check.why);
            say(format_args!("    hint: {hint}"));
        }
        _ => line(check.ok, title, &check.why),
    }
}

/// A sign, what it is about, and what there is to say.
fn line(ok: Option<bool>, title: &str, text: &str) {
    let sign = match ok {
        Some(true) => styled(GOOD, "✓"),
        Some(false) => styled(BAD, "✗"),
        None => styled(FAINT, "–"),
    };
    let text = match (ok, text) {
        (Some(true), "") => "works",
        (Some(false), "") => "does not work",
        (_, text) => text,
    };
    say(format_args!("  {sign} {title:<12} {text}"));
}

/// As in `02 to 07`.
fn range(steps: &[Step]) -> String {
    let number = |step: &Step| format!("{:02}", step.number());
    match steps {
        [] => String::new(),
        [one] => number(one),
        [one, other] => format!("{}, {}", number(one), number(other)),
        [first, .., last] => format!("{} to {}", number(first), number(last)),
    }
}

/// The last line, which says what to do; in `cargo workshop vm` there is no
/// second one of them.
fn next(steps: &[(Vec<Step>, Option<&Check>)], in_vm: bool) -> String {
    let mut failing = steps.iter().filter_map(|(steps, first)| {
        Some((steps.first()?.number(), (*first)?))
    });
    match failing.next() {
        None => "Next: `cargo workshop start`".to_owned(),
        Some((_, check)) if in_vm => format!(
            "Next: {}. Then `cargo workshop doctor` again",
            check.remedy()
        ),
        Some((7, _)) => "Next: `cargo workshop start`. Step 07 can wait, or \
                         runs in `cargo workshop vm`"
            .to_owned(),
        Some((_, check)) => format!(
            "Next: {}. Then `cargo workshop doctor` again. \
             Where you may not: `cargo workshop vm`",
            check.remedy()
        ),
    }
}
