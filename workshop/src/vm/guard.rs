//! What has to be as it was when the machine is gone, and the process that
//! sees to it when the launcher was killed.

use std::ffi::OsString;
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
use nix::unistd::{Pid, getpgid, getpgrp};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use suite::process;

use super::room::Room;

/// A process that leads the process group which the machine's processes are
/// in, and which waits for the launcher's end.
pub struct Guard {
    pub group: i32,
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
        Ok(Self { group, _line: line, _process: process })
    }
}

/// The guard itself.
pub fn main(arguments: &[OsString]) -> Result<ExitCode> {
    // Whoever is in the background is stopped when it changes a terminal,
    // unless it blocks SIGTTOU, see termios(3).
    SigSet::all().thread_block()?;
    let settings = tcgetattr(io::stdout()).ok();
    let line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    (&line).write_all(&[0])?;
    // The end of this is the end of the launcher.
    let _ = (&line).read(&mut [0]);
    restore(io::stdout(), settings.as_ref());
    end_group(getpgrp().as_raw());
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

/// Kills whoever is in a process group but its leader and us. User-Mode Linux
/// has helper processes, which outlive it when it is killed.
pub fn end_group(group: i32) {
    let whole = Pid::from_raw(group);
    for _ in 0..200 {
        let mut left = process::all();
        left.retain(|process| {
            process.0 != group
                && *process != process::own()
                && getpgid(Some(Pid::from_raw(process.0))) == Ok(whole)
                && process.is_alive()
        });
        if left.is_empty() {
            return;
        }
        for process in left {
            let _ = process.signal(Signal::SIGKILL);
        }
        sleep(Duration::from_millis(5));
    }
}
