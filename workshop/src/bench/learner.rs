//! How long a learner waits: in a copy of the course, compiled apart.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::measure::{median, rounded};
use super::room::find;
use super::{guarded, report};
use crate::check::Watch;
use crate::root;
use crate::terminal::{FAINT, note, styled};

/// What a learner does, what comes before it each time, and how often it is
/// measured.
const LOOP: [(&str, &str, &str, usize); 6] = [
    (
        "clean build to first prompt",
        "rm -rf target",
        "cargo run -q -p step05-proc -- run /bin/true",
        1,
    ),
    (
        "one-line change to prompt",
        "cp -n step05-proc/src/main.rs target/before.rs; \
         echo '// A line more.' >> step05-proc/src/main.rs",
        "cargo run -q -p step05-proc -- run /bin/true",
        5,
    ),
    ("compiling `cargo workshop`", "true", "cargo workshop", 1),
    (
        "`cargo workshop check`",
        "cp target/before.rs step05-proc/src/main.rs; \
         cargo build -q -p step05-proc",
        "cargo workshop check 05 --bin target/debug/step05-proc",
        3,
    ),
    ("`cargo test`, compiled", "cargo test -q --no-run", "cargo test -q", 1),
    (
        "`cargo workshop book`, compiled",
        "cargo build -q -p book",
        "cargo workshop book",
        2,
    ),
];

/// Does it.
pub fn run(watch: &Watch) -> Result<Value> {
    let folder = TempDir::with_prefix("workshop-loop-")?;
    copy_course(folder.path())?;
    let mut rows = vec![];
    for (name, before, command, runs) in LOOP {
        note(styled(FAINT, format!("measuring {name}")));
        let results = folder.path().join("hyperfine.json");
        let output = folder.path().join("output");
        let program = find("hyperfine").context("hyperfine is gone")?;
        let mut hyperfine = Command::new(program);
        hyperfine
            .args(["--style", "none", "--runs", &runs.to_string()])
            .args(["--prepare", before, "--export-json"])
            .arg(&results)
            .arg("--output")
            .arg(&output)
            .arg(command)
            .current_dir(folder.path())
            .env("CARGO_NET_OFFLINE", "true")
            .env_remove("CARGO_TARGET_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = hyperfine.spawn().context("cannot start hyperfine")?;
        watch.guard(Some(guarded(&child)?));
        let status = child.wait()?;
        watch.guard(None);
        ensure!(!watch.is_over(), "interrupted");
        if !status.success() {
            let said = fs::read_to_string(&output).unwrap_or_default();
            let lines: Vec<_> = said.lines().rev().take(9).collect();
            lines.iter().rev().for_each(note);
            bail!("`{command}` fails");
        }
        let text = fs::read_to_string(&results)?;
        let found: Value = serde_json::from_str(&text)?;
        let times = found["results"][0]["times"].as_array();
        let times = times.context("hyperfine measured no times")?;
        let times = times.iter().filter_map(Value::as_f64).collect();
        let seconds = rounded(median(times), 1);
        rows.push(json!({ "name": name, "seconds": seconds }));
    }
    Ok(json!({ "loop": { "rows": rows, "machine": report::machine() } }))
}

/// What git knows of, as it is now.
fn copy_course(to: &Path) -> Result<()> {
    let course = root()?;
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(&course)
        .output()
        .context("cannot start git")?;
    ensure!(output.status.success(), "{} is no clone", course.display());
    let names = String::from_utf8(output.stdout)?;
    for name in names.split_terminator('\0') {
        let (from, to) = (course.join(name), to.join(name));
        if let (true, Some(parent)) = (from.exists(), to.parent()) {
            fs::create_dir_all(parent)?;
            fs::copy(&from, &to)
                .with_context(|| format!("cannot copy {name}"))?;
        }
    }
    Ok(())
}
