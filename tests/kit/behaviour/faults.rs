//! Every system call with which a container is made fails once. Every step.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use crate::caller::Caller;
use crate::harness::{Test, skip};
use crate::host;
use crate::inject::{self, Call, Role, Trace};
use crate::program::{Output, Subject};
use crate::tests;

/// For every step; slow.
pub const TESTS: &[Test] = tests![needs container:
    every_system_call_fails_once,
];

/// The command's own.
const STATUS: i32 = 7;

/// How long the host may take to be as it was.
const PATIENCE: Duration = Duration::from_secs(3);

/// Calls without which there is no container: none may fail in silence.
const BUILDING: &[&str] = &[
    "chdir",
    "chroot",
    "clone",
    "clone3",
    "execve",
    "fchdir",
    "fork",
    "mkdir",
    "mkdirat",
    "mount",
    "pivot_root",
    "prctl",
    "sethostname",
    "umount2",
    "unshare",
    "vfork",
];

/// Calls that are left alone, and why. Each has to be made by step07.
const NEVER: &[(&str, &str)] = &[
    ("close", "it has closed the descriptor whatever it answers"),
    ("exit_group", "it does not return"),
    ("getegid", "it always succeeds"),
    (inject::UNLOCK, "it never waits, and nix does not know that it fails"),
    ("geteuid", "it always succeeds"),
    ("getpgrp", "it always succeeds"),
    ("getpid", "it always succeeds"),
    ("recvfrom", "signal-hook sends to itself, and every signal interrupts it"),
    ("rt_sigaction", "it is refused for wrong arguments only"),
    ("rt_sigprocmask", "it is refused for wrong arguments only"),
    ("rt_sigreturn", "it does not return"),
    ("sendto", "signal-hook sends to itself"),
];

/// Calls for memory and locks are the runtime's: it makes them as it likes, and
/// ends the program where they fail.
const RUNTIME: &[&str] =
    &["brk", "futex", "mmap", "mprotect", "mremap", "munmap", "sigaltstack"];

/// What a line has to say of a call when it does not name the file.
const WORDS: &[(&str, &str)] = &[
    ("chdir", "new root"),
    ("clone", "start"),
    ("clone", "run"),
    ("clone3", "start"),
    ("clone3", "run"),
    ("prctl", "cannot"),
    ("sethostname", "host name"),
    ("umount2", "old root"),
    ("unshare", "namespaces"),
    ("write", "control group"),
];

fn every_system_call_fails_once(subject: &Subject) -> Result<()> {
    if !inject::IS_KNOWN {
        return Err(skip("calls are made to fail on x86-64 only"));
    }
    let (good, whole) = run(subject, None)?;
    if good.err().contains("suite: cannot start") {
        return Err(skip("nothing can be traced here"));
    }
    good.expect_status(STATUS)?;
    ensure!(good.complaints().is_empty(), "{good}");
    for half in [Role::Launcher, Role::Child] {
        let is_seen = whole.calls.iter().any(|call| call.role == half);
        ensure!(is_seen, "{half} makes no call: it has no banner any more");
    }
    ensure!(!whole.picture.is_empty(), "the command was not seen");
    for (name, _) in NEVER {
        let is_made = whole.calls.iter().any(|call| call.name == *name);
        let has_all = subject.step == 7 && subject.caller == Caller::User;
        ensure!(is_made || !has_all, "{name} need not be left alone");
    }
    let mut failures = Vec::new();
    let mut missed = 0;
    for call in few(&whole.calls) {
        for errno in errnos(call) {
            let sandboxes = [subject.sandbox];
            let fail = || fail(subject, call, errno, &good, &whole);
            let (result, changes) =
                host::guard(subject.groups, &sandboxes, PATIENCE, fail);
            missed += usize::from(matches!(result, Ok(false)));
            let mut problems = changes;
            problems.extend(result.err().map(|error| error.to_string()));
            if !problems.is_empty() {
                let problems = problems.join("\n  ");
                failures.push(format!("{call}, {errno:?}:\n  {problems}"));
            }
        }
    }
    let shown = failures[..failures.len().min(20)].join("\n");
    ensure!(failures.is_empty(), "{} times:\n{shown}", failures.len());
    // A file in /proc is not always of the same length.
    ensure!(missed < 5, "{missed} calls were not made again");
    Ok(())
}

/// One run with an option or two more than needed, so that more is called.
fn run(
    subject: &Subject,
    fault: Option<(&Call, Errno)>,
) -> Result<(Output, Trace)> {
    let file = tempfile::NamedTempFile::new()?;
    let tracer = inject::args(&file.path().into(), fault);
    let mut start = subject.sh("hostname; exit 7").traced_by(tracer);
    start = match subject.step {
        7 => start.options(["--cpus", "0.5"]),
        // To join one takes longer than all the rest.
        _ => start.without_groups(),
    };
    let output = start.limit(Duration::from_secs(20)).run()?;
    let text = fs::read_to_string(file.path())?;
    let trace = Trace::parse(&text).context("not a trace")?;
    Ok((output, trace))
}

/// All, but of many calls of the same name in a row the first and the last,
/// such as of the pieces in which a banner is written.
fn few(calls: &[Call]) -> Vec<&Call> {
    let mut calls: Vec<_> = calls.iter().collect();
    calls.retain(|call| NEVER.iter().all(|(name, _)| *name != call.name));
    calls.retain(|call| !RUNTIME.contains(&&*call.name));
    // At the same time they run in any order.
    calls.sort_by_key(|call| call.role);
    let rows = calls.chunk_by(|a, b| (a.role, &a.name) == (b.role, &b.name));
    rows.flat_map(|row| match row {
        [first, _, _, _, .., last] => vec![*first, *last],
        row => row.to_vec(),
    })
    .collect()
}

/// What the kernel could answer: EPERM, which a filter can make of anything,
/// and one of those that come and go.
fn errnos(call: &Call) -> Vec<Errno> {
    let other = match &*call.name {
        "clone" | "clone3" | "fork" | "vfork" => Some(Errno::EAGAIN),
        "mkdir" | "mount" | "symlink" | "unshare" | "write" => {
            Some(Errno::ENOSPC)
        }
        "openat" if call.creates => Some(Errno::ENOSPC),
        "flock" | "openat" | "read" => Some(Errno::EINTR),
        _ => None,
    };
    [Errno::EPERM].into_iter().chain(other).collect()
}

/// Whether there is no container without that call: it may not fail without
/// anybody saying so.
fn is_building(call: &Call) -> bool {
    let about = call.about.first().map_or("", |text| text);
    let maps = ["setgroups", "gid_map", "uid_map"];
    let is_map = maps.iter().any(|map| about.ends_with(map));
    // A group that cannot hand controllers down is passed over for another.
    let is_limit =
        about.contains("cgroup") && !about.ends_with("subtree_control");
    BUILDING.contains(&&*call.name)
        || call.name == "write" && (is_map || is_limit)
}

/// One run in which that call fails; false when it was not made.
fn fail(
    subject: &Subject,
    call: &Call,
    errno: Errno,
    good: &Output,
    whole: &Trace,
) -> Result<bool> {
    let (output, trace) = run(subject, Some((call, errno)))?;
    output.expect_no_panic()?;
    if output.status.code() == Some(STATUS) {
        output.expect_out(&good.out())?;
        ensure!(output.complaints().is_empty(), "{output}");
        for (is, was) in trace.picture.iter().zip(&whole.picture) {
            ensure!(is == was, "a container with {is:?} instead of {was:?}");
        }
        ensure!(
            trace.picture.len() == whole.picture.len(),
            "more or less than in the container: {:?}",
            trace.picture
        );
        let [made] = &trace.calls[..] else { return Ok(false) };
        ensure!(
            !is_building(made) || errno == Errno::EINTR,
            "nobody says so: {output}"
        );
        return Ok(true);
    }
    let made = trace.calls.first().context("another call failed")?;
    let status = match (call.role, &*call.name) {
        (Role::StartOfCommand, _) | (Role::Child, "execve") => 126,
        // std does not say which of the two it was.
        (Role::Child, "clone" | "clone3") if errno == Errno::EPERM => 126,
        _ => 125,
    };
    let answer = format!(": {} ({errno:?})", errno.desc());
    output.expect_failure(status, &answer)?;
    if !call.is_late {
        output.expect_out("")?;
    }
    let line = output.complaints().swap_remove(0);
    let program = subject.sandbox.program.file_name().unwrap_or_default();
    let program = &*program.to_string_lossy();
    let stage = line.strip_prefix(program).unwrap_or_default();
    let stage = stage.strip_suffix(&answer).unwrap_or_default();
    ensure!(stage.starts_with(": cannot "), "no stage: {line}");
    let words = WORDS.iter().filter(|(name, _)| *name == call.name);
    let files = made.about.iter().filter_map(|path| path.rsplit('/').next());
    ensure!(
        !is_building(made)
            || words
                .map(|(_, word)| *word)
                .chain(files)
                .chain([&*call.name])
                .any(|word| !word.is_empty() && stage.contains(word)),
        "another stage: {line}"
    );
    Ok(true)
}
