//! The system calls of a container, and what each is there for.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::contestant::{Contestant, Job};
use super::room::{TRUE, find};

/// What a call is there for, as it stands in the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    Loading,
    Runtime,
    Spawning,
    Signals,
    Status,
    Banner,
    Container,
}

impl Reason {
    const ALL: [(Self, &str); 7] = [
        (Self::Loading, "loading the program and its libraries"),
        (Self::Runtime, "Rust's runtime, and memory"),
        (Self::Spawning, "starting processes: `posix_spawn` in libc"),
        (Self::Signals, "catching signals, waiting for them"),
        (Self::Status, "reading `/proc/self/status`"),
        (Self::Banner, "the banner"),
        (Self::Container, "the container"),
    ];
}

/// The calls up to the one that starts the command.
pub struct Calls(Vec<(String, Reason)>);

impl Calls {
    /// How many.
    pub fn number(&self) -> usize {
        self.0.len()
    }

    /// How many for what.
    pub fn by_reason(&self) -> Vec<Value> {
        let count = |(reason, name)| {
            let mut calls = BTreeMap::<&str, usize>::new();
            for (call, _) in self.0.iter().filter(|(_, r)| *r == reason) {
                *calls.entry(call).or_default() += 1;
            }
            json!({ "name": name, "calls": calls })
        };
        Reason::ALL.map(count).to_vec()
    }
}

/// Counts them, where there is strace.
pub fn count(contestant: &Contestant) -> Result<Option<Calls>> {
    let Some(strace) = find("strace") else { return Ok(None) };
    let file = NamedTempFile::new()?;
    let status = Command::new(strace)
        .args(["-f", "-qq", "-o"])
        .arg(file.path())
        .args(contestant.command(Job::True, "trace"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot start strace")?;
    ensure!(status.success(), "{} fails in strace", contestant.name);
    let text = fs::read(file.path()).context("cannot read the trace")?;
    Ok(Some(calls(&String::from_utf8_lossy(&text))))
}

/// Where a process is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Between fork and exec.
    Spawned,
    Loading,
    Runtime,
    /// In `main`.
    Main,
    /// In `main`, reading that file.
    Status,
    /// It runs the command.
    Command,
}

fn calls(trace: &str) -> Calls {
    let mut calls = vec![];
    let mut places = HashMap::<&str, Place>::new();
    // Starts the command, when it does not fail.
    let mut last = None;
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let done = call.ends_with(" = 0");
        if let Some(resumed) = call.strip_prefix("<... ") {
            if resumed.starts_with("execve") && done {
                let place = match last == Some(pid) {
                    true => Place::Command,
                    false => Place::Loading,
                };
                places.insert(pid, place);
            }
            continue;
        }
        let Some((name, arguments)) = call.split_once('(') else { continue };
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        // The first one there is has been started by strace.
        let first = match places.is_empty() {
            true => Place::Loading,
            false => Place::Spawned,
        };
        let place = places.entry(pid).or_insert(first);
        if *place == Place::Command {
            continue;
        }
        if name == "poll" && *place == Place::Loading {
            *place = Place::Runtime;
        }
        if name == "write" && arguments.starts_with("2, \"running ") {
            *place = Place::Main;
        }
        let reads_status = matches!(name, "open" | "openat")
            && arguments.contains("self/status");
        if reads_status && *place == Place::Main {
            *place = Place::Status;
        }
        calls.push((name.to_owned(), reason(*place, name, arguments)));
        if *place == Place::Status && name == "close" {
            *place = Place::Main;
        }
        if name == "execve" {
            let program = format!("\"{}\"", TRUE[0]);
            let starts_command = arguments.starts_with(&program);
            last = starts_command.then_some(pid).or(last);
            match (starts_command, done) {
                (true, true) => *place = Place::Command,
                (false, true) => *place = Place::Loading,
                _ => {}
            }
        }
    }
    Calls(calls)
}

fn reason(place: Place, name: &str, arguments: &str) -> Reason {
    match (place, name) {
        (Place::Loading, _) => Reason::Loading,
        (Place::Runtime, _) => Reason::Runtime,
        (Place::Spawned, _) => Reason::Spawning,
        (Place::Status, _) => Reason::Status,
        (_, "write") if arguments.starts_with("2, ") => Reason::Banner,
        (_, "getpid" | "brk" | "exit_group" | "sigaltstack") => Reason::Runtime,
        (_, "munmap" | "mmap" | "mprotect") if arguments.contains("12288") => {
            Reason::Runtime
        }
        (_, "mmap" | "munmap" | "clone3" | "clone" | "vfork" | "execve") => {
            Reason::Spawning
        }
        (_, "rt_sigprocmask" | "rt_sigaction" | "rt_sigreturn") => {
            Reason::Signals
        }
        (_, "socketpair" | "recvfrom" | "sendto" | "wait4") => Reason::Signals,
        _ => Reason::Container,
    }
}

#[cfg(test)]
mod tests {
    use super::{Reason, calls};

    const TRACE: &str = r#"
7 execve("/step", ["/step", "run", "/bin/true"], 0x7 /* 3 vars */) = 0
7 mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, -1, 0) = 0x7
7 poll([{fd=0, events=0}], 3, 0)    = 0 (Timeout)
7 write(2, "running [\"/bin/true\"] as 7\n", 27) = 27
7 openat(AT_FDCWD, "/proc/self/status", O_RDONLY|O_CLOEXEC) = 3
7 read(3, "Name", 32)               = 32
7 close(3)                          = 0
7 unshare(CLONE_NEWPID)             = 0
7 clone3({flags=CLONE_VM|CLONE_VFORK}, 88 <unfinished ...>
8 rt_sigaction(SIGHUP, NULL, {sa_handler=SIG_DFL}, 8) = 0
8 execve("/bin/true", ["/bin/true"], 0x7 /* 2 vars */ <unfinished ...>
7 <... clone3 resumed>)             = 8
8 <... execve resumed>)             = 0
8 brk(NULL)                         = 0x7
8 +++ exited with 0 +++
7 --- SIGCHLD {si_signo=SIGCHLD} ---
7 wait4(8, NULL, WNOHANG, NULL)     = 8
7 exit_group(0)                     = ?
"#;

    #[test]
    fn what_calls_are_for() {
        let calls = calls(TRACE);
        let reasons = calls.0.iter().map(|(_, reason)| *reason);
        let reasons: Vec<_> = reasons.collect();
        assert_eq!(
            reasons,
            [
                Reason::Loading,
                Reason::Loading,
                Reason::Runtime,
                Reason::Banner,
                Reason::Status,
                Reason::Status,
                Reason::Status,
                Reason::Container,
                Reason::Spawning,
                Reason::Spawning,
                Reason::Spawning,
                Reason::Signals,
                Reason::Runtime,
            ]
        );
    }
}
