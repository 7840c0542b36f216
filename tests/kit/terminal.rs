//! A real pseudo-terminal, for what only a terminal shows.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::ttyname;

use crate::process::SOON;
use crate::program::{Output, Running, Start, Subject};
use crate::start::Given;

/// Something that no program writes.
const MARK: &str = "\0suite\0";

/// A terminal with its user's end in our hands.
#[derive(Debug)]
pub struct Terminal {
    ours: File,
    /// Held open, so that the settings stay when the last program has gone.
    theirs: File,
    path: PathBuf,
    shown: String,
    read: usize,
}

impl Terminal {
    /// A new one of 24 lines and 80 columns, the caller's own.
    pub fn new(subject: &Subject) -> Result<Self> {
        Self::with_columns(subject, 80)
    }

    /// A new one that is that wide.
    pub fn with_columns(subject: &Subject, columns: u16) -> Result<Self> {
        let size =
            Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).context("no pseudo-terminal")?;
        // Neither end is for the programs under test: they get the terminal
        // by its path.
        for end in [&pty.master, &pty.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        let path = ttyname(&pty.slave)?;
        if subject.caller.is_another() {
            let (uid, gid) = subject.caller.ids();
            chown(&path, Some(uid), Some(gid))?;
        }
        Ok(Self {
            ours: pty.master.into(),
            theirs: pty.slave.into(),
            path,
            shown: String::new(),
            read: 0,
        })
    }

    /// Makes a program the leader of a session on this terminal.
    pub fn of(&self, start: Start) -> Start {
        start.given(Given::Terminal(self.path.clone()))
    }

    /// Types that.
    pub fn types(&mut self, keys: &str) -> Result<()> {
        Ok(self.ours.write_all(keys.as_bytes())?)
    }

    /// Reads on until the terminal shows that; gives what came before it.
    pub fn shows(&mut self, text: &str) -> Result<String> {
        let end = Instant::now() + SOON;
        loop {
            if let Some(at) = self.shown[self.read..].find(text) {
                let before = self.shown[self.read..][..at].to_owned();
                self.read += at + text.len();
                return Ok(before);
            }
            if Instant::now() > end {
                bail!("the terminal never showed {text:?}: {:?}", self.shown);
            }
            self.look(Duration::from_millis(50))?;
        }
    }

    /// Reads on until that program has ended.
    pub fn stays_until(&mut self, running: Running) -> Result<Output> {
        // bash as sh tries to fork for 15 seconds before it gives up.
        let end = Instant::now() + SOON;
        while running.process().is_alive() && Instant::now() < end {
            self.look(Duration::from_millis(5))?;
        }
        running.wait()
    }

    /// Everything that it showed. What was written comes to us through the
    /// kernel's hands, a moment later: so we write something and wait for it.
    pub fn all(&mut self) -> Result<&str> {
        let end = Instant::now() + SOON;
        while self.look(Duration::from_millis(20))? && Instant::now() < end {}
        self.theirs.write_all(MARK.as_bytes())?;
        loop {
            if let Some(at) = self.shown.find(MARK) {
                self.shown.replace_range(at..at + MARK.len(), "");
                return Ok(&self.shown);
            }
            ensure!(Instant::now() < end, "the terminal stands still");
            self.look(Duration::from_millis(20))?;
        }
    }

    /// Gives it another size, as a window that is pulled at.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let status = Command::new("stty")
            .args(["rows", &rows, "cols", &columns])
            .stdin(self.theirs.try_clone()?)
            .status()
            .context("cannot start stty")?;
        ensure!(status.success(), "stty cannot change the size");
        Ok(())
    }

    /// Reads on until nothing more comes.
    pub fn falls_silent(&mut self) -> Result<()> {
        let end = Instant::now() + SOON;
        while self.look(Duration::from_millis(50))? {
            ensure!(Instant::now() < end, "it goes on and on");
        }
        Ok(())
    }

    /// Closes it, as a window is closed.
    pub fn hang_up(self) {}

    /// Its settings.
    pub fn settings(&self) -> Result<Termios> {
        Ok(tcgetattr(&self.theirs)?)
    }

    /// Reads what there is, or waits that long for something.
    fn look(&mut self, limit: Duration) -> Result<bool> {
        let mut polled = [PollFd::new(self.ours.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit)?;
        match poll(&mut polled, limit) {
            Ok(0) | Err(Errno::EINTR) => return Ok(false),
            other => other?,
        };
        let mut piece = [0; 4096];
        let n = self.ours.read(&mut piece)?;
        self.shown += &String::from_utf8_lossy(&piece[..n]);
        Ok(n > 0)
    }
}
