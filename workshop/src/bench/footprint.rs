//! What a container takes up while it runs, and how large its program is.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use suite::process::{Process, below};

use super::contestant::{Contestant, Job};
use super::{crowd, trace};

/// Its program, its processes, and the system calls that it takes.
pub fn of(contestant: &Contestant) -> Result<Value> {
    let size = fs::metadata(&contestant.program)
        .with_context(|| format!("cannot look at {}", contestant.program))?
        .len();
    let command = contestant.command(Job::Wait, "one");
    let (launcher, end) = crowd::one(&command)?;
    let inside = below(launcher);
    let first = inside.iter().copied().find(|one| is_first(*one));
    let memory = |process: Process| {
        json!({
            "peak": status(process, "VmHWM"),
            "private": rollup(process, &["Private_Clean", "Private_Dirty"]),
        })
    };
    let first = match first {
        Some(one) if !is_command(one) => memory(one),
        _ => Value::Null,
    };
    let launcher = match is_command(launcher) {
        true => Value::Null,
        false => memory(launcher),
    };
    end()?;
    let calls = trace::count(contestant)?;
    Ok(json!({
        "name": contestant.name,
        "size": size,
        "launcher": launcher,
        "first": first,
        "calls": calls.as_ref().map(trace::Calls::number),
        "reasons": calls.map(|calls| calls.by_reason()),
    }))
}

/// Whether it is what was to be run in the container.
pub fn is_command(process: Process) -> bool {
    process.args().first().is_some_and(|word| {
        ["/bin/sh", "/bin/true"].iter().any(|name| word == name)
    })
}

/// Whether it is PID 1 of a PID namespace below ours.
fn is_first(process: Process) -> bool {
    process.status("NSpid").is_ok_and(|numbers| {
        let numbers: Vec<_> = numbers.split_whitespace().collect();
        numbers.len() > 1 && numbers.last() == Some(&"1")
    })
}

fn status(process: Process, key: &str) -> u64 {
    process.status(key).map_or(0, |value| kib(&value))
}

/// The sum of some lines of smaps_rollup, in KiB, see proc_pid_smaps(5).
pub fn rollup(process: Process, keys: &[&str]) -> u64 {
    let text = process.read("smaps_rollup").unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let lines = lines.filter(|(key, _)| keys.contains(key));
    lines.map(|(_, value)| kib(value)).sum()
}

fn kib(value: &str) -> u64 {
    let number = value.split_whitespace().next();
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}
