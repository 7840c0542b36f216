//! The measuring, on a host of its own where we may have one.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use suite::cgroup::{Pen, hierarchies};
use suite::{Caller, host};

use super::contestant::{self, Contestant, FLOOR, GROUPS, Job, NUMBER, TWICE};
use super::room::{Room, find};
use super::{crowd, footprint};
use crate::terminal::{FAINT, note, styled};

/// How much is measured.
struct Effort {
    /// In each round everybody has a turn.
    rounds: usize,
    /// In each turn.
    runs: usize,
    /// How many containers one after another, and at once.
    numbers: &'static [usize],
}

const ALL: Effort =
    Effort { rounds: 12, runs: 25, numbers: &[1, 10, 100, 1000] };
const QUICK: Effort = Effort { rounds: 4, runs: 10, numbers: &[1, 10, 100] };

/// Of whom many are started, and at most how many.
const MANY: [(&str, usize); 6] = [
    (FLOOR, 1000),
    ("step06", 1000),
    ("step07", 1000),
    ("bubblewrap", 1000),
    ("crun", 100),
    ("runc", 100),
];

/// Measures everybody.
pub fn run(room: &Room, quick: bool) -> Result<Value> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    host::enter()?;
    enter_pen()?;
    let effort = if quick { QUICK } else { ALL };
    let (all, left_out) = contestant::all(room);
    if !all.iter().any(|one| one.name == FLOOR) {
        let why = left_out.iter().find(|(name, _)| name == FLOOR);
        bail!("the floor does not run: {}", why.map_or("", |(_, why)| why));
    }
    say(&format!(
        "start-up of {}, {} times each",
        all.len(),
        effort.rounds * effort.runs
    ));
    let start_up = start_up(room, &all, &effort)?;
    say("memory, and system calls");
    let mut footprints = vec![];
    for one in all.iter().filter(|one| ![TWICE, GROUPS].contains(&&*one.name)) {
        let found = footprint::of(one).with_context(|| one.name.clone())?;
        footprints.push(found);
    }
    let mut growth = vec![];
    for (name, most) in MANY {
        let Some(one) = all.iter().find(|one| one.name == name) else {
            continue;
        };
        let numbers = effort.numbers.iter().copied();
        let numbers: Vec<_> = numbers.filter(|n| *n <= most).collect();
        say(&format!("{:?} containers of {name}", numbers));
        growth.push(many(room, one, &numbers)?);
    }
    let left_out = left_out.iter();
    let left_out: Vec<_> = left_out
        .map(|(name, why)| json!({ "name": name, "why": why }))
        .collect();
    Ok(json!({
        "start-up": start_up,
        "footprint": footprints,
        "growth": growth,
        "left out": left_out,
    }))
}

fn say(line: &str) {
    note(styled(FAINT, format!("measuring {line}")));
}

/// Takes the control groups that our parent made for the whole tree, so that
/// whoever makes groups makes them there, and hides version 2 where it has no
/// controllers to speak of: crun refuses to work beside it.
fn enter_pen() -> Result<()> {
    if Caller::own() != Caller::Root {
        return Ok(());
    }
    // Where there is no writing to the tree, there is nothing to remove.
    let _ = Pen::enter();
    // A pen is for one program under test, not for a thousand at once. In it
    // we are on top, or just below; elsewhere the limit is not ours to lift.
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let is_pen = groups.lines().all(|line| {
        let path = line.rsplit(':').next().unwrap_or_default();
        path.trim_matches('/').split('/').count() == 1
            && (path == "/" || path.starts_with("/suite-"))
    });
    for hierarchy in hierarchies()?.iter().filter(|_| is_pen) {
        for group in hierarchy.own.ancestors().take(2) {
            let _ = fs::write(group.join("pids.max"), "max");
        }
    }
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.is_dir() {
        let (tmpfs, none) = (Some("tmpfs"), None::<&str>);
        mount(tmpfs, unified, tmpfs, MsFlags::empty(), none)
            .context("cannot hide the version 2 of a hybrid tree")?;
    }
    Ok(())
}

/// Everybody takes turns, so that what disturbs one disturbs all.
fn start_up(
    room: &Room,
    all: &[Contestant],
    effort: &Effort,
) -> Result<Vec<Value>> {
    let commands = all.iter().map(|one| one.command(Job::True, "one"));
    let mut commands: Vec<_> = commands.enumerate().collect();
    let mut medians = vec![vec![]; all.len()];
    for _ in 0..effort.rounds {
        let turns: Vec<_> = commands.iter().map(|(_, c)| c.clone()).collect();
        let times = hyperfine(room, effort.runs, 2, &turns)?;
        for ((n, _), times) in commands.iter().zip(times) {
            medians[*n].push(median(times));
        }
        // And back.
        commands.reverse();
    }
    let floor = all.iter().position(|one| one.name == FLOOR).unwrap_or(0);
    let floor = medians[floor].clone();
    let row = |(one, medians): (&Contestant, &Vec<f64>)| {
        let ratios = medians.iter().zip(&floor).map(|(own, floor)| own / floor);
        let mut ratios: Vec<_> = ratios.collect();
        ratios.sort_by(f64::total_cmp);
        json!({
            "name": one.name,
            "ms": rounded(median(medians.clone()) * 1e3, 3),
            "ratio": rounded(median(ratios.clone()), 3),
            "lowest": rounded(ratios[0], 3),
            "highest": rounded(ratios[ratios.len() - 1], 3),
        })
    };
    Ok(all.iter().zip(&medians).map(row).collect())
}

/// Containers one after another and at once: milliseconds for each, and KiB.
fn many(room: &Room, one: &Contestant, numbers: &[usize]) -> Result<Value> {
    let (mut after, mut at_once, mut memory) = (vec![], vec![], vec![]);
    let single = one.command(Job::True, "one");
    let words = one.command(Job::Wait, NUMBER);
    let own = env::current_exe()?.to_string_lossy().into_owned();
    let crowd = |number: usize| {
        let part = ["bench", "--part", "crowd", "--number"];
        let mut command = vec![own.clone()];
        command.extend(part.map(str::to_owned));
        command.extend([number.to_string(), "--".to_owned()]);
        command.extend(words.iter().cloned());
        command
    };
    // What the one that starts them takes by itself.
    let none = median(hyperfine(room, 10, 1, &[crowd(0)])?.remove(0));
    for number in numbers {
        let times = hyperfine(room, *number, 2, std::slice::from_ref(&single))?;
        let sum: f64 = times.iter().flatten().sum();
        after.push(rounded(sum * 1e3 / *number as f64, 3));
        let runs = (300 / number).clamp(2, 20);
        let times = hyperfine(room, runs, 0, &[crowd(*number)])?;
        let time = median(times.into_iter().flatten().collect()) - none;
        at_once.push(rounded(time * 1e3 / *number as f64, 3));
        memory.push(rounded(crowd::memory(*number, &words)?, 0));
    }
    Ok(json!({
        "name": one.name,
        "containers": numbers,
        "one after another": after,
        "at once": at_once,
        "memory": memory,
    }))
}

/// How long each command took each time, in seconds.
pub fn hyperfine(
    room: &Room,
    runs: usize,
    warmup: usize,
    commands: &[Vec<String>],
) -> Result<Vec<Vec<f64>>> {
    let results = room.path().join("hyperfine.json");
    let program = find("hyperfine").context("hyperfine is gone")?;
    let output = Command::new(program)
        .args(["--shell=none", "--style", "none", "--export-json"])
        .arg(&results)
        .args(["--warmup", &warmup.to_string(), "--runs", &runs.to_string()])
        .arg("--")
        .args(commands.iter().map(|words| quoted(words)))
        .stdin(Stdio::null())
        .output()
        .context("cannot start hyperfine")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let lines = errors.lines().filter(|line| line.contains("rror"));
        bail!("hyperfine: {}", lines.collect::<Vec<_>>().join(" "));
    }
    let text = fs::read_to_string(&results)?;
    let found: Value = serde_json::from_str(&text)?;
    let commands = found["results"].as_array().context("no results")?;
    let times = commands.iter().map(|command| {
        let times = command["times"].as_array()?;
        times.iter().map(Value::as_f64).collect::<Option<Vec<_>>>()
    });
    times.collect::<Option<_>>().context("hyperfine measured no times")
}

/// As a shell has to read it.
fn quoted(words: &[String]) -> String {
    let quoted =
        words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    quoted.collect::<Vec<_>>().join(" ")
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// To so many places.
pub fn rounded(value: f64, places: i32) -> f64 {
    let factor = 10_f64.powi(places);
    (value * factor).round() / factor
}
