//! Processes as /proc shows them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long the kit waits for something that should happen at once: a machine
/// may be busy. Only a test that fails takes that long.
pub const SOON: Duration = Duration::from_secs(30);

/// A process, by its number outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(pub i32);

impl Process {
    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    /// State letter and parent, from /proc/PID/stat. See proc(5).
    fn state_and_parent(self) -> io::Result<(char, i32)> {
        // One line, and so one read: this is asked of every process there is,
        // again and again.
        let mut stat = [0; 1024];
        let length = File::open(self.file("stat"))?.read(&mut stat)?;
        let stat = String::from_utf8_lossy(&stat[..length]);
        // The name in parentheses may hold anything, parentheses included.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let mut fields = after.split_whitespace();
        let state = fields.next().and_then(|field| field.chars().next());
        let parent = fields.next().and_then(|field| field.parse().ok());
        state.zip(parent).ok_or_else(|| io::Error::other("unreadable stat"))
    }

    /// Whether it exists and is no zombie.
    pub fn is_alive(self) -> bool {
        self.state_and_parent()
            .is_ok_and(|(state, _)| !matches!(state, 'Z' | 'X'))
    }

    /// Its state letter (R, S, T, Z…), or None when it is gone.
    pub fn state(self) -> Option<char> {
        self.state_and_parent().ok().map(|(state, _)| state)
    }

    /// Its parent.
    pub fn parent(self) -> Option<Self> {
        self.state_and_parent().ok().map(|(_, pid)| Self(pid))
    }

    /// Its arguments.
    pub fn args(self) -> Vec<OsString> {
        let line = fs::read(self.file("cmdline")).unwrap_or_default();
        let line = line.strip_suffix(b"\0").unwrap_or(&line);
        line.split(|byte| *byte == 0)
            .map(|arg| OsString::from_vec(arg.to_vec()))
            .collect()
    }

    /// What `readlink /proc/PID/ns/KIND` says.
    pub fn namespace(self, kind: &str) -> Result<String> {
        let link = self.file("ns").join(kind);
        let target = fs::read_link(&link)
            .with_context(|| format!("cannot read {}", link.display()))?;
        Ok(target.to_string_lossy().into_owned())
    }

    /// One of the small files in /proc/PID.
    pub fn read(self, name: &str) -> Result<String> {
        let path = self.file(name);
        let text = fs::read(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// One line of /proc/PID/status.
    pub fn status(self, key: &str) -> Result<String> {
        self.read("status")?
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(found, _)| *found == key)
            .map(|(_, value)| value.trim().to_owned())
            .with_context(|| format!("no {key} in status"))
    }

    /// Whether its process group is the terminal's, see proc_pid_stat(5).
    pub fn is_in_foreground(self) -> bool {
        self.read("stat").is_ok_and(|stat| {
            let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
            let fields: Vec<_> = after.split_whitespace().collect();
            fields.len() > 5 && fields[2] == fields[5]
        })
    }

    /// Sends it a signal.
    pub fn signal(self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.0), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.0))
    }

    /// `PID args…`, for messages.
    pub fn describe(self) -> String {
        let args: Vec<_> = self
            .args()
            .iter()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        format!("{} {}", self.0, args.join(" "))
    }
}

/// Every process that /proc shows.
pub fn all() -> Vec<Process> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Process)
        .collect()
}

/// The living processes below `top`: children, their children, and so on.
pub fn below(top: Process) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in all() {
        if let Some(parent) = process.parent() {
            children.entry(parent.0).or_default().push(process);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![top];
    while let Some(process) = next.pop() {
        let below = children.remove(&process.0).unwrap_or_default();
        next.extend(&below);
        found.extend(below);
    }
    found.retain(|process| process.is_alive());
    found.sort();
    found
}

/// This process.
pub fn own() -> Process {
    Process(i32::try_from(process::id()).expect("a PID fits"))
}

/// Everything that this process's tests left running: as the child subreaper
/// it becomes the parent of every orphan below it.
pub fn left_behind() -> Vec<Process> {
    below(own())
}

/// Kills what is left running. Each is stopped first, so that none can start
/// another one meanwhile.
pub fn kill_left_behind() -> Vec<Process> {
    let end = Instant::now() + SOON;
    let mut stopped = Vec::new();
    loop {
        let mut left = left_behind();
        left.retain(|process| !stopped.contains(process));
        for process in &left {
            let _ = process.signal(Signal::SIGSTOP);
        }
        let is_over = left.is_empty() || Instant::now() > end;
        stopped.append(&mut left);
        if is_over {
            break;
        }
    }
    for process in &stopped {
        let _ = process.signal(Signal::SIGKILL);
    }
    stopped
}

/// Kills what is left running and collects every zombie. To be called only
/// while no program under test is being waited for.
pub fn sweep() {
    let end = Instant::now() + SOON;
    loop {
        let left = kill_left_behind();
        reap();
        if left.is_empty() || Instant::now() > end {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Collects every zombie. To be called as [`sweep`] is.
pub fn reap() {
    // nix answers EINVAL for a death by a real-time signal, after having
    // reaped it.
    while !matches!(
        waitpid(None, Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD)
    ) {}
}

/// Waits until `condition` gives a value, or fails naming what was awaited.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let began = Instant::now();
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() > end {
            bail!("no {what} within {limit:?}");
        }
        // Who looks again at once takes the processor from those who are to
        // be seen.
        thread::sleep(began.elapsed().max(Duration::from_millis(2)));
    }
}

/// Waits for `condition` as long as things may take to settle; says whether
/// it came true.
pub fn settles(mut condition: impl FnMut() -> bool) -> bool {
    wait_for("settling", SOON, || Ok(condition().then_some(()))).is_ok()
}

/// The process below us whose arguments begin with what `is` accepts: that is
/// how the command is told from the launcher, whose arguments end with it.
pub fn find(what: &str, is: impl Fn(&[OsString]) -> bool) -> Result<Process> {
    wait_for(what, SOON, || {
        Ok(left_behind().into_iter().find(|found| is(&found.args())))
    })
}
