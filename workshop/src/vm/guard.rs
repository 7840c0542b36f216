//! What has to be as it was when the machine is gone, and the process that
//! sees to it when the launcher was killed.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpgid, getpgrp, getsid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use suite::process::{self, Process};

use super::kernel;
use super::room::Room;

/// A process that leads the process group which the machine's processes are
/// in, and which waits for the launcher's end.
pub struct Guard {
    pub processes: Processes,
    _line: UnixStream,
    _process: Child,
}

impl Guard {
    /// Starts it; gives it the terminal, to remember the settings of.
    pub fn start(room: &Room, terminal: Option<OwnedFd>) -> Result<Self> {
        let (mut line, theirs) = UnixStream::pair()?;
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["vm", "--part", "guard"])
            .args(room.folders())
            .stdin(OwnedFd::from(theirs))
            .stdout(terminal.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0);
        let process = command.spawn().context("cannot start a guard")?;
        drop(command);
        line.read_exact(&mut [0]).context("the guard does not answer")?;
        let group = i32::try_from(process.id())?;
        let processes = Processes::new(group, room.path().as_os_str());
        Ok(Self { processes, _line: line, _process: process })
    }
}

/// The guard itself.
pub fn main(arguments: &[OsString]) -> Result<ExitCode> {
    // Whoever is in the background is stopped when it changes a terminal,
    // unless it blocks SIGTTOU, see termios(3).
    SigSet::all().thread_block()?;
    let room = arguments.first().context("no room")?;
    let settings = tcgetattr(io::stdout()).ok();
    let line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    (&line).write_all(&[0])?;
    // The end of this is the end of the launcher.
    let _ = (&line).read(&mut [0]);
    restore(io::stdout(), settings.as_ref());
    Processes::new(getpgrp().as_raw(), room).end();
    for folder in arguments {
        let _ = fs::remove_dir_all(folder);
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives a terminal its settings back.
pub fn restore(terminal: impl AsFd, settings: Option<&Termios>) {
    if let Some(settings) = settings {
        let _ = tcsetattr(terminal, OptionalActions::Now, settings);
    }
}

/// The machine's processes. User-Mode Linux has helpers, which outlive it when
/// it is killed, and it makes a session of its own.
#[derive(Clone)]
pub struct Processes {
    group: i32,
    /// Among the arguments of each.
    mark: OsString,
}

impl Processes {
    /// Those of the kernel with this room, and what is in the guard's group.
    fn new(group: i32, room: &OsStr) -> Self {
        Self { group, mark: kernel::mark(room) }
    }

    /// The process group to start the kernel in.
    pub fn group(&self) -> i32 {
        self.group
    }

    /// Kills them all, but not the guard.
    pub fn end(&self) {
        for _ in 0..200 {
            let left = self.all();
            if left.is_empty() {
                return;
            }
            for process in left {
                let _ = process.signal(Signal::SIGKILL);
            }
            sleep(Duration::from_millis(5));
        }
    }

    fn all(&self) -> Vec<Process> {
        let group = Pid::from_raw(self.group);
        let mut others = process::all();
        others.retain(|process| {
            process.0 != self.group && *process != process::own()
        });
        let pid = |process: &Process| Some(Pid::from_raw(process.0));
        let session = |process: &Process| getsid(pid(process)).ok();
        let marked = |process: &Process| process.args().contains(&self.mark);
        let sessions: HashSet<_> =
            others.iter().filter(|p| marked(p)).filter_map(session).collect();
        let own = getsid(None).ok();
        others.retain(|process| {
            let session = session(process);
            let ours = getpgid(pid(process)) == Ok(group)
                || session.is_some_and(|s| sessions.contains(&s))
                    && session != own
                || marked(process);
            ours && process.is_alive()
        });
        others
    }
}
