//! The host as it is before and after a test.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{gethostname, sethostname};

use crate::OWN_PROGRAM;
use crate::caller::Caller;
use crate::cgroup::Groups;
use crate::probe;
use crate::process::{self, Process, SOON};
use crate::program::{Findings, Running, Start, Subject};
use crate::sandbox::Sandbox;
use crate::start::Given;

/// Makes the host one of our own, where we may: what a broken program does to
/// it harms nobody, and what others mount meanwhile is not taken for its doing.
/// Its mounts are shared if they were: what a program leaks is to be seen.
pub fn enter() -> Result<()> {
    if Caller::own() == Caller::Root {
        let is_shared = is_shared()?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
        let all = |flag: MsFlags| {
            let flags = flag | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        };
        // Cut loose first, so that they are shared among our own only.
        all(MsFlags::MS_PRIVATE)?;
        if is_shared {
            all(MsFlags::MS_SHARED)?;
        }
    }
    // Orphans of a program under test become our children, and are seen.
    Ok(prctl::set_child_subreaper(true)?)
}

/// Whether what is mounted on `/` appears elsewhere, too, as it is where
/// systemd runs; see proc_pid_mountinfo(5).
fn is_shared() -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let fields = mounts.lines().map(|line| line.split(' '));
    let mut roots = fields.filter(|it| it.clone().nth(4) == Some("/"));
    Ok(roots.next_back().is_some_and(|mut root| {
        let mut optional = root.by_ref().skip(6).take_while(|it| *it != "-");
        optional.any(|field| field.starts_with("shared:"))
    }))
}

/// Runs `test`, and compares the host before and after, also when the test
/// failed; then puts right what can be put right, so that it fails no other.
/// Things get `patience` to settle: processes need a moment to die.
pub fn guard<T>(
    groups: &Groups,
    sandboxes: &[&Sandbox],
    patience: Duration,
    test: impl FnOnce() -> Result<T>,
) -> (Result<T>, Vec<String>) {
    let before = Host::now(groups, sandboxes);
    let result = panic::catch_unwind(AssertUnwindSafe(test))
        .unwrap_or_else(|panic| Err(anyhow!("{}", message(&*panic))));
    let changes = before.changes(groups, sandboxes, patience);
    process::sweep();
    before.restore(groups);
    (result, changes)
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "a panic".to_owned())
}

/// Mounts, host name, control groups, processes and files.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    mounts: Vec<String>,
    name: String,
    groups: BTreeSet<PathBuf>,
    processes: Vec<Process>,
    files: Vec<String>,
}

impl Host {
    /// Looks at the host now. Processes are those below this one, so it has to
    /// be the child subreaper.
    pub fn now(groups: &Groups, sandboxes: &[&Sandbox]) -> Self {
        Self {
            mounts: fs::read_to_string("/proc/self/mountinfo")
                .unwrap_or_default()
                .lines()
                .map(str::to_owned)
                .collect(),
            name: gethostname()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            groups: groups.directories(),
            processes: process::left_behind(),
            files: sandboxes.iter().flat_map(|s| s.listing()).collect(),
        }
    }

    /// Removes the control groups and the mounts that were not there then, and
    /// gives back the name.
    fn restore(&self, groups: &Groups) {
        let now = Self::now(groups, &[]);
        if now.groups != self.groups {
            groups.restore(&self.groups);
        }
        // The last one stands on those before it.
        for line in now.mounts.iter().rev() {
            if let (false, Some(at)) =
                (self.mounts.contains(line), line.split(' ').nth(4))
            {
                let _ = umount2(at, MntFlags::MNT_DETACH);
            }
        }
        if now.name != self.name {
            let _ = sethostname(&self.name);
        }
    }

    /// What differs now, one line each; nothing when the host is as it was.
    fn changes(
        &self,
        groups: &Groups,
        sandboxes: &[&Sandbox],
        patience: Duration,
    ) -> Vec<String> {
        let settled = process::wait_for("settling", patience, || {
            // Most often it is a process that needs another moment; all else
            // takes longer to look at.
            let is_settled = process::left_behind() == self.processes
                && Self::now(groups, sandboxes) == *self;
            Ok(is_settled.then_some(()))
        });
        if settled.is_ok() {
            return Vec::new();
        }
        let now = Self::now(groups, sandboxes);
        let mut lines = Vec::new();
        compare(&mut lines, "mount", &self.mounts, &now.mounts, Clone::clone);
        if self.name != now.name {
            lines.push(format!(
                "the host name was {:?} and is {:?}",
                self.name, now.name
            ));
        }
        compare(&mut lines, "cgroup", &self.groups, &now.groups, |path| {
            path.display().to_string()
        });
        compare(
            &mut lines,
            "process",
            &self.processes,
            &now.processes,
            |process| process.describe(),
        );
        compare(&mut lines, "file", &self.files, &now.files, Clone::clone);
        lines
    }
}

fn compare<'a, T: PartialEq + Debug + 'a>(
    lines: &mut Vec<String>,
    what: &str,
    before: impl IntoIterator<Item = &'a T> + Clone,
    after: impl IntoIterator<Item = &'a T> + Clone,
    show: impl Fn(&T) -> String,
) {
    let mut missing = |verb: &str, from: Vec<&T>, other: Vec<&T>| {
        for item in from.into_iter().filter(|item| !other.contains(item)) {
            lines.push(format!("{what} {verb}: {}", show(item)));
        }
    };
    let before: Vec<_> = before.into_iter().collect();
    let after: Vec<_> = after.into_iter().collect();
    missing("left behind", after.clone(), before.clone());
    missing("gone", before, after);
}

/// A host to be ruined: for root, a process with a host name and a mount
/// table of its own, `/` shared as systemd does it, so that what a leaky step
/// does to "the host" is seen there and harms nobody. An ordinary user cannot
/// change the host, so for a suite that runs as one it is the host itself.
#[derive(Debug)]
pub struct Outside(Option<Running>);

impl Outside {
    /// Starts it.
    pub fn new(subject: &Subject) -> Result<Self> {
        if Caller::own() != Caller::Root {
            return Ok(Self(None));
        }
        let own = Path::new(OWN_PROGRAM);
        let process =
            Start::of(own, [probe::PART, "outside"], subject.sandbox.dir())
                .with_input()
                .spawn()?;
        process.wait_for_output("@@ ready")?;
        Ok(Self(Some(process)))
    }

    /// Makes a program start there.
    pub fn of(&self, start: Start) -> Start {
        match &self.0 {
            Some(process) => start.given(Given::Outside(process.process().0)),
            None => start,
        }
    }

    /// A process there.
    pub fn process(&self) -> Process {
        self.0.as_ref().map_or_else(process::own, Running::process)
    }

    /// Its host name now.
    pub fn host_name(&mut self) -> Result<String> {
        let Some(process) = &mut self.0 else {
            return Ok(gethostname()?.to_string_lossy().into_owned());
        };
        let names = |process: &Running| {
            let findings = Findings::from(&process.output_so_far()[..]);
            findings.all("hostname").to_vec()
        };
        let before = names(process).len();
        process.write(b"\n")?;
        process::wait_for("host name", SOON, || {
            Ok(names(process).get(before).cloned())
        })
    }

    /// Its mount table now.
    pub fn mounts(&self) -> Result<String> {
        self.process().read("mountinfo")
    }
}
