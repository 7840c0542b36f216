//! What was measured, as tables: on the screen, and in BENCHMARKS.md.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::utsname::uname;
use nix::unistd::Uid;
use serde_json::{Map, Value, json};

use super::contestant::{FLOOR, GROUPS};
use super::room::find;
use crate::root;
use crate::terminal::{STRONG, say, styled};

/// The last run, from the course's root.
const DATA: &str = "workshop/bench/last.json";
/// What shows it.
const PAGE: &str = "BENCHMARKS.md";

/// Whom we measure beside ourselves, and with what.
const PROGRAMS: [&str; 9] = [
    "hyperfine",
    "cc",
    "rustc",
    "bwrap",
    "crun",
    "runc",
    "podman",
    "unshare",
    "go",
];

/// The machine, as far as it matters.
pub fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let field = |text: &str, key: &str, mark: char| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        let (_, value) = line.split_once(mark)?;
        Some(value.trim().trim_matches('"').to_owned())
    };
    let number = cpus.lines().filter(|l| l.starts_with("processor")).count();
    let virtual_one = field(&cpus, "flags", ':')
        .is_some_and(|flags| flags.split(' ').any(|it| it == "hypervisor"));
    let memory = field(&read("/proc/meminfo"), "MemTotal", ':');
    let memory = memory.and_then(|kib| {
        kib.split(' ').next().and_then(|kib| kib.parse::<f64>().ok())
    });
    let kernel = uname().map(|it| it.release().to_string_lossy().into_owned());
    let version = |name: &&str| {
        let program = find(name)?;
        let flag = if *name == "go" { "version" } else { "--version" };
        let said = Command::new(program).arg(flag).output().ok()?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        Some(said.lines().next()?.to_owned())
    };
    let versions: Vec<_> = PROGRAMS.iter().filter_map(version).collect();
    let date = Command::new("date").args(["-u", "+%F"]).output();
    let date = date.map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
    json!({
        "date": date.unwrap_or_default().trim(),
        "processor": field(&cpus, "model name", ':'),
        "processors": number,
        "virtual": virtual_one,
        "memory": memory.map(|kib| (kib / f64::from(1 << 20)).round()),
        "kernel": kernel.unwrap_or_default(),
        "system": field(&read("/etc/os-release"), "PRETTY_NAME", '='),
        "root": Uid::effective().is_root(),
        "versions": versions,
    })
}

fn machine_in_words(machine: &Value) -> String {
    let text = |key: &str| machine[key].as_str().unwrap_or("?").to_owned();
    let versions = machine["versions"].as_array().into_iter().flatten();
    let versions: Vec<_> = versions.filter_map(Value::as_str).collect();
    format!(
        "{}: {} x {}{}, {} GiB; Linux {}, {}; as {}. {}.",
        text("date"),
        machine["processors"],
        text("processor"),
        match machine["virtual"].as_bool() {
            Some(true) => " in a virtual machine",
            _ => "",
        },
        machine["memory"].as_f64().unwrap_or_default(),
        text("kernel"),
        text("system"),
        match machine["root"].as_bool() {
            Some(true) => "root",
            _ => "an ordinary user",
        },
        versions.join("; ")
    )
}

/// A table, its first column text and the others numbers.
struct Table {
    name: &'static str,
    title: &'static str,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&self.head);
        let rule = self.head.iter().enumerate();
        let rule = rule.map(|(n, _)| if n == 0 { "---" } else { "---:" });
        text += &line(&rule.map(str::to_owned).collect::<Vec<_>>());
        text.extend(self.rows.iter().map(|row| line(row)));
        text
    }

    fn plain(&self) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            let cells = all().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for row in all() {
            let cells = row.iter().zip(&widths).enumerate();
            let cells = cells.map(|(n, (cell, width))| match n {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text += "\n";
        }
        text
    }
}

/// All that the results give.
fn tables(found: &Value) -> Vec<Table> {
    let tables = [
        start_up(found),
        footprint(found),
        calls(found),
        growth(found),
        learner(found),
    ];
    tables.into_iter().flatten().collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn rows<'a>(found: &'a Value, key: &str) -> Option<&'a Vec<Value>> {
    found[key].as_array().filter(|rows| !rows.is_empty())
}

fn name(row: &Value) -> String {
    row["name"].as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value, places: usize) -> String {
    let number = value.as_f64();
    number.map_or("–".to_owned(), |number| format!("{number:.places$}"))
}

fn start_up(found: &Value) -> Option<Table> {
    let all = rows(found, "start-up")?;
    let row = |one: &Value| {
        vec![
            name(one),
            number(&one["ms"], 2),
            number(&one["ratio"], 2),
            format!(
                "{} to {}",
                number(&one["lowest"], 2),
                number(&one["highest"], 2)
            ),
        ]
    };
    let mut rows: Vec<_> = all.iter().map(row).collect();
    rows.extend(without_groups(all));
    Some(Table {
        name: "start-up",
        title: "start-up",
        head: words(&["`run /bin/true`", "ms", "x floor", "in the rounds"]),
        rows,
    })
}

/// step07 without what the kernel takes for control groups: as long as the
/// floor takes longer when it has some.
fn without_groups(all: &[Value]) -> Vec<Vec<String>> {
    let ms = |name: &str| {
        let one = all.iter().find(|one| one["name"] == name)?;
        one["ms"].as_f64()
    };
    let (Some(floor), Some(groups)) = (ms(FLOOR), ms(GROUPS)) else {
        return vec![];
    };
    let kernel = groups - floor;
    let row = |name: &str, ms: f64| {
        let ratio = format!("{:.2}", ms / floor);
        vec![name.to_owned(), format!("{ms:.2}"), ratio, "–".to_owned()]
    };
    let mut rows = vec![row("the kernel, for control groups", kernel)];
    for name in ["step07", "step07, static"] {
        let ms = ms(name).map(|ms| ms - kernel);
        rows.extend(ms.map(|ms| row(&format!("{name}, without that"), ms)));
    }
    rows
}

fn footprint(found: &Value) -> Option<Table> {
    let row = |one: &Value| {
        let of = |process: &str| {
            ["peak", "private"].map(|key| number(&one[process][key], 0))
        };
        let size = one["size"].as_f64().map(|bytes| bytes / 1024.0);
        let mut row = vec![name(one)];
        row.extend(of("launcher"));
        row.extend(of("first"));
        row.push(number(&json!(size), 0));
        row.push(number(&one["calls"], 0));
        row
    };
    Some(Table {
        name: "footprint",
        title: "footprint, in KiB",
        head: words(&[
            "in KiB",
            "launcher, peak",
            "private",
            "PID 1, peak",
            "private",
            "program",
            "system calls",
        ]),
        rows: rows(found, "footprint")?.iter().map(row).collect(),
    })
}

fn calls(found: &Value) -> Option<Table> {
    let all = rows(found, "footprint")?.iter();
    let ours: Vec<_> = all
        .filter(|one| {
            name(one).starts_with("step") && !one["reasons"].is_null()
        })
        .collect();
    let reasons = |one: &Value| one["reasons"].as_array().cloned();
    let mut head = words(&["system calls for"]);
    head.extend(ours.iter().map(|one| name(one)));
    let mut rows = vec![];
    for (n, reason) in reasons(ours.first()?)?.iter().enumerate() {
        let sum = |one: &&Value| {
            let calls = one["reasons"][n]["calls"].as_object();
            let calls = calls.into_iter().flat_map(Map::values);
            calls.filter_map(Value::as_u64).sum::<u64>().to_string()
        };
        let mut row = vec![name(reason)];
        row.extend(ours.iter().map(sum));
        rows.push(row);
    }
    // Those of the container by name: the others are not a step's own.
    let own = |one: &Value| {
        let all = reasons(one).unwrap_or_default();
        all.last().map_or(Value::Null, |last| last["calls"].clone())
    };
    let mut names = BTreeSet::new();
    for one in &ours {
        if let Value::Object(calls) = own(one) {
            names.extend(calls.keys().cloned());
        }
    }
    for name in names {
        let mut row = vec![format!("… `{name}`")];
        row.extend(ours.iter().map(|one| {
            own(one)[&name].as_u64().map_or(String::new(), |n| n.to_string())
        }));
        rows.push(row);
    }
    Some(Table { name: "calls", title: "system calls", head, rows })
}

fn growth(found: &Value) -> Option<Table> {
    let all = rows(found, "growth")?;
    let numbers = all.first()?["containers"].as_array()?;
    let mut head = words(&["for each container"]);
    head.extend(numbers.iter().map(ToString::to_string));
    let mut rows = vec![];
    for one in all {
        let kinds = [
            ("one after another", "ms", 2),
            ("at once", "ms", 2),
            ("memory", "KiB", 0),
        ];
        for (key, unit, places) in kinds {
            let values = one[key].as_array().map_or(&[][..], |v| v);
            let mut row = vec![format!("{}, {key}, {unit}", name(one))];
            row.extend((0..numbers.len()).map(|n| {
                values.get(n).map_or("–".to_owned(), |v| number(v, places))
            }));
            rows.push(row);
        }
    }
    Some(Table { name: "growth", title: "growth", head, rows })
}

fn learner(found: &Value) -> Option<Table> {
    let all = rows(&found["loop"], "rows")?;
    let row = |one: &Value| vec![name(one), number(&one["seconds"], 1)];
    Some(Table {
        name: "loop",
        title: "the learner's loop",
        head: words(&["the learner's loop", "s"]),
        rows: all.iter().map(row).collect(),
    })
}

fn left_out(found: &Value) -> String {
    let all = rows(found, "left out").into_iter().flatten();
    let all = all.map(|one| {
        format!("{} ({})", name(one), one["why"].as_str().unwrap_or_default())
    });
    all.collect::<Vec<_>>().join("; ")
}

/// Prints it.
pub fn show(found: &Value) {
    for table in tables(found) {
        say("");
        say(styled(STRONG, table.title));
        say(table.plain().trim_end());
    }
    let left_out = left_out(found);
    if !left_out.is_empty() {
        say("");
        say(format_args!("left out: {left_out}"));
    }
    say("");
    say(machine_in_words(&found["machine"]));
}

/// Writes it; what was not measured this time stays as it was.
pub fn save(found: &Value) -> Result<()> {
    let course = root()?;
    let (data, page) = (course.join(DATA), course.join(PAGE));
    let known = fs::read_to_string(&data).unwrap_or("{}".to_owned());
    let mut all: Value = serde_json::from_str(&known)
        .with_context(|| format!("{DATA} is not JSON"))?;
    let learner = !found["loop"].is_null();
    for (key, value) in found.as_object().into_iter().flatten() {
        if !(learner && key == "machine") {
            all[key] = value.clone();
        }
    }
    let text = fs::read_to_string(&page)
        .with_context(|| format!("cannot read {PAGE}"))?;
    fs::write(&page, filled(&text, &all))
        .with_context(|| format!("cannot write {PAGE}"))?;
    fs::write(&data, serde_json::to_string_pretty(&all)? + "\n")
        .with_context(|| format!("cannot write {DATA}"))?;
    say("");
    say(format_args!(
        "written: {DATA}, {PAGE}. The book's picture: `cargo workshop book`"
    ));
    Ok(())
}

/// A page with the results where `<!-- NAME -->` and `<!-- end -->` stand.
fn filled(page: &str, found: &Value) -> String {
    let mut parts = vec![
        ("machine", machine_in_words(&found["machine"]) + "\n"),
        ("left-out", left_out(found) + "\n"),
    ];
    let learner = &found["loop"]["machine"];
    parts.push(("loop-machine", machine_in_words(learner) + "\n"));
    let tables = tables(found);
    parts.extend(tables.iter().map(|table| (table.name, table.markdown())));
    let mut page = page.to_owned();
    for (name, text) in parts {
        let begin = format!("<!-- {name} -->\n");
        let Some((before, rest)) = page.split_once(&begin) else { continue };
        let Some((_, after)) = rest.split_once("<!-- end -->") else {
            continue;
        };
        page = format!("{before}{begin}\n{text}\n<!-- end -->{after}");
    }
    page
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn the_page_says_what_was_measured() {
        let course = env::var("CARGO_MANIFEST_DIR").unwrap() + "/..";
        let read = |name: &str| {
            fs::read_to_string(format!("{course}/{name}")).unwrap()
        };
        let found = serde_json::from_str(&read(DATA)).unwrap();
        let page = read(PAGE);
        assert!(
            page == filled(&page, &found),
            "{PAGE} is not as {DATA} has it"
        );
        assert!(page.contains("| step06 |"), "{PAGE} has no table");
    }

    #[test]
    fn a_table_in_columns() {
        let table = Table {
            name: "",
            title: "",
            head: words(&["who", "ms"]),
            rows: vec![words(&["step06", "2.50"]), words(&["runc", "34.00"])],
        };
        let plain = "who        ms\nstep06   2.50\nrunc    34.00\n";
        assert_eq!(table.plain(), plain);
    }
}
