//! All that the doctor looks at and tries, in the order in which it is shown,
//! and what each step needs of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use doctor::kernel;
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use super::host::{Host, find, install};
use super::trial::{Complaint, Outcome, Trial, attempt};
use crate::step::Step;

/// One line of the report.
pub struct Check {
    /// A name that stays.
    pub name: String,
    /// What it belongs to.
    pub group: &'static str,
    /// What it is called there.
    pub title: &'static str,
    /// Unknown when it was not tried, and of what is neither good nor bad.
    pub ok: Option<bool>,
    /// Whether it was tried, or needs no trial.
    pub tried: bool,
    /// What was seen.
    pub why: String,
    /// The name of the cause.
    pub cause: Option<String>,
    /// The cause and the way out.
    pub hint: Option<String>,
    /// Whether anything needs it here.
    pub needed: bool,
}

/// Each trial: its group, its title there, and what it is in a sentence.
const TRIALS: [(Trial, &str, &str, &str); 14] = [
    (Trial::Start, "machine", "process", "a new process"),
    (Trial::User, "namespaces", "user", "a user namespace"),
    (Trial::Maps, "namespaces", "its maps", "a user namespace's maps"),
    (Trial::Uts, "namespaces", "UTS", "a UTS namespace"),
    (Trial::Pid, "namespaces", "PID", "a PID namespace"),
    (Trial::Mount, "namespaces", "mount", "a mount namespace"),
    (Trial::Cgroup, "namespaces", "cgroup", "a cgroup namespace"),
    (Trial::Rootfs, "root", "file system", "a root file system"),
    (Trial::Chroot, "root", "chroot", "chroot"),
    (Trial::Proc, "root", "proc", "a proc of its own"),
    (Trial::PivotRoot, "root", "pivot_root", "pivot_root"),
    (Trial::Devices, "root", "devices", "devices"),
    (
        Trial::Limits,
        "control groups",
        "pids, memory",
        "limits on processes and memory",
    ),
    (Trial::Cpu, "control groups", "cpu", "a limit on processors"),
];

/// What a trial does before its own part, and fails with.
fn needs(trial: Trial, capable: bool) -> &'static [Trial] {
    match trial {
        Trial::Start => &[],
        Trial::User | Trial::Rootfs => &[Trial::Start],
        Trial::Maps => &[Trial::User],
        Trial::Uts if capable => &[Trial::Start],
        Trial::Uts => &[Trial::Maps],
        Trial::Pid => &[Trial::Uts],
        Trial::Mount | Trial::Cgroup | Trial::Limits => &[Trial::Pid],
        Trial::Chroot => &[Trial::Pid, Trial::Rootfs],
        Trial::Proc => &[Trial::Mount, Trial::Rootfs],
        Trial::PivotRoot => &[Trial::Proc],
        Trial::Devices => &[Trial::PivotRoot],
        Trial::Cpu => &[Trial::Limits],
    }
}

/// The trials that together do what a step does.
fn done_by(step: Step) -> &'static [Trial] {
    match step.number() {
        1 => &[Trial::Start],
        2 => &[Trial::Uts],
        3 => &[Trial::Pid],
        4 => &[Trial::Chroot],
        5 => &[Trial::Proc, Trial::Chroot],
        6 => &[Trial::Devices],
        _ => &[Trial::Devices, Trial::Limits, Trial::Cgroup],
    }
}

/// All that was found out.
pub struct Report {
    pub host: Host,
    pub checks: Vec<Check>,
}

/// Looks at everything and tries everything.
pub fn all() -> Report {
    let host = Host::now();
    let checks = machine(&host);
    let mut report = Report { host, checks };
    let folder = Folder::new();
    for (trial, group, title, _) in TRIALS {
        if trial == Trial::Limits {
            let layout = report.host.layout();
            report.add(Check::fact("layout", group, "layout", layout));
        }
        let check = Check::fact(&name(trial), group, title, "");
        let check = report.tried(trial, &folder, check);
        report.add(check);
    }
    report.checks.extend(tools());
    report
}

impl Report {
    /// What keeps a step from running here.
    pub fn in_the_way(&self, step: Step) -> Option<&Check> {
        let trials = done_by(step).iter();
        trials.copied().find_map(|trial| self.failed(trial))
    }

    /// The first that does not work, of this and all that it needs.
    fn failed(&self, trial: Trial) -> Option<&Check> {
        let mut needs = needs(trial, self.host.capable).iter();
        let before = needs.find_map(|need| self.failed(*need));
        let own = || {
            let mut checks = self.checks.iter();
            checks.find(|it| it.name == name(trial) && it.ok == Some(false))
        };
        before.or_else(own)
    }

    fn add(&mut self, check: Check) {
        self.checks.push(check);
    }

    fn tried(&self, trial: Trial, folder: &Folder, check: Check) -> Check {
        let for_users = matches!(trial, Trial::User | Trial::Maps);
        let needed = !(for_users && self.host.capable);
        let mut needs = needs(trial, self.host.capable).iter();
        if let Some(first) = needs.find_map(|need| self.failed(*need)) {
            let why = format!("not tried: needs {}", first.in_a_sentence());
            return Check { why, needed, tried: false, ..check };
        }
        let outcome = match (&folder.complaint, trial) {
            (Some(complaint), Trial::Rootfs) => {
                Outcome::Fails(complaint.clone())
            }
            _ => attempt(trial, &folder.path),
        };
        match outcome {
            Outcome::Works(why) => {
                Check { ok: Some(true), why, needed, ..check }
            }
            Outcome::Fails(Complaint { why, cause, hint }) => {
                let hint =
                    hint.or_else(|| Some(self.last_resort(trial, folder)));
                let ok = Some(false);
                Check { ok, why, cause, hint, needed, ..check }
            }
        }
    }

    /// Where nobody knows why.
    fn last_resort(&self, trial: Trial, folder: &Folder) -> String {
        let old = self.checks.iter().find(|check| check.name == "kernel");
        let old = old.and_then(|kernel| kernel.hint.clone());
        let broken = folder.is_here() && trial.has_root();
        old.unwrap_or_else(|| match broken {
            true => "the root in ./fs may be broken: `cargo workshop rootfs \
                     --force` makes it anew"
                .to_owned(),
            false if self.host.user_mode => {
                "nothing was seen that explains this: leave this machine with \
                 `exit` and try it outside"
                    .to_owned()
            }
            false => "nothing was seen that explains this: try it in a kernel \
                      of your own, with `cargo workshop vm`"
                .to_owned(),
        })
    }
}

impl Check {
    fn fact(
        name: &str,
        group: &'static str,
        title: &'static str,
        why: impl Into<String>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            group,
            title,
            ok: None,
            tried: true,
            why: why.into(),
            cause: None,
            hint: None,
            needed: true,
        }
    }

    /// What it is about.
    pub fn in_a_sentence(&self) -> &'static str {
        let mut all = TRIALS.iter();
        let found = all.find(|(trial, ..)| name(*trial) == self.name);
        found.map_or(self.title, |(.., words)| words)
    }

    /// What to do about it.
    pub fn remedy(&self) -> &str {
        let hint = self.hint.as_deref().unwrap_or_default();
        hint.split_once(": ").map_or(hint, |(_, remedy)| remedy)
    }
}

fn name(trial: Trial) -> String {
    let value = trial.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Where the trials run: here when `fs` is here, for a step takes that as it
/// is; else where one can be built, and thrown away.
struct Folder {
    path: PathBuf,
    /// Why none can be made.
    complaint: Option<Complaint>,
    temporary: Option<(TempDir, Option<Flock<File>>)>,
}

impl Folder {
    fn new() -> Self {
        let here = PathBuf::from(".");
        if Path::new("fs").symlink_metadata().is_ok() {
            return Self { path: here, complaint: None, temporary: None };
        }
        match Self::temporary() {
            Ok(temporary) => Self {
                path: temporary.0.path().to_owned(),
                complaint: None,
                temporary: Some(temporary),
            },
            Err(error) => Self {
                path: here,
                complaint: Some(Complaint::of_folder(&error)),
                temporary: None,
            },
        }
    }

    /// Whether that is the `fs` of whoever asks.
    fn is_here(&self) -> bool {
        self.temporary.is_none() && self.complaint.is_none()
    }

    /// With the name and the lock of a root that is being built: should we be
    /// killed, the next one who builds a root here sweeps it away. There are
    /// file systems without locks.
    fn temporary() -> Result<(TempDir, Option<Flock<File>>)> {
        let folder = tempfile::Builder::new()
            .prefix(".fs.unfinished.")
            .rand_bytes(6)
            .tempdir_in(".")
            .or_else(|error| {
                // That has no errno.
                let again = ".fs.unfinished.again";
                let made = fs::create_dir(again);
                made.and_then(|()| fs::remove_dir(again)).and(Err(error))
            })
            .context("cannot make a directory here")?;
        let file = File::open(folder.path()).ok();
        let shared = FlockArg::LockShared;
        let lock = file.and_then(|file| Flock::lock(file, shared).ok());
        Ok((folder, lock))
    }
}

fn machine(host: &Host) -> Vec<Check> {
    let fact =
        |name, title, why: String| Check::fact(name, "machine", title, why);
    vec![
        kernel(host),
        fact("rights", "rights", host.rights()),
        fact("around", "around us", host.around()),
        fact("switches", "switches", host.forbidding()),
        fact("mounts", "mounts", host.mounts().to_owned()),
    ]
}

fn kernel(host: &Host) -> Check {
    let release = host.release.as_deref().unwrap_or("unknown");
    let check = Check::fact("kernel", "machine", "kernel", release);
    let (major, minor) = kernel::OLDEST;
    let version = kernel::version(release);
    let ok = version.map(|version| version >= kernel::OLDEST);
    let wsl = host.wsl.map(|wsl| format!(" (WSL {wsl})"));
    let why = format!("{release}{}", wsl.unwrap_or_default());
    let hint = (ok == Some(false)).then(|| match host.wsl {
        Some(1) => "WSL 1 has no Linux kernel: `wsl --set-version NAME 2` in \
                    a terminal of Windows, with a name of `wsl --list`"
            .to_owned(),
        _ => format!(
            "these programs are made for Linux {major}.{minor} and newer: try \
             them in a kernel of your own, with `cargo workshop vm`"
        ),
    });
    Check { ok, why, hint, ..check }
}

/// What helps and is not needed.
fn tools() -> Vec<Check> {
    let tool = |name, title, names: &[&str], hint: String| {
        let check = Check::fact(name, "tools", title, "");
        match find(names) {
            Some(path) => {
                let why = path.display().to_string();
                Check { ok: Some(true), why, ..check }
            }
            None => Check {
                ok: Some(false),
                why: "not found".to_owned(),
                hint: Some(hint),
                needed: false,
                ..check
            },
        }
    };
    vec![
        tool(
            "busybox",
            "busybox",
            &["busybox"],
            format!(
                "a root is made of this machine's own programs, and would be \
                 smaller with it: {}",
                install("busybox-static", "busybox")
            ),
        ),
        tool(
            "strace",
            "strace",
            &["strace"],
            format!(
                "the chapters look at system calls with it: {}",
                install("strace", "strace")
            ),
        ),
        tool(
            "cc",
            "C compiler",
            &["cc", "gcc", "clang"],
            format!(
                "Rust calls it to link: {}",
                install("gcc libc6-dev", "gcc")
            ),
        ),
    ]
}
