//! The machine while it runs, seen from outside.

use std::fs::{self, File};
use std::io::ErrorKind::{BrokenPipe, Interrupted};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, raise};
use rustix::process::{WaitOptions, wait};
use signal_hook::consts::{
    SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH,
};
use signal_hook::iterator::Signals;

use super::guard::{Guard, Processes};
use super::job::Job;
use super::kernel;
use super::line::{Kind, Order, PIECE, receive, send};
use super::room::Room;
use super::terminal::Terminal;
use crate::terminal::{BAD, FAINT, note, styled};

/// How long it may take to power off.
const PATIENCE: Duration = Duration::from_secs(5);

/// What it says on every boot.
const USUAL: [&str; 7] = [
    "Core dump limits",
    "Failed to initialize ubd device 0",
    "SELinux: ",
    "epollctl add err",
    "hard - ",
    "mmapper_init",
    "soft - ",
];

/// A machine. Dropping it ends it, and leaves nothing behind.
pub struct Machine {
    shared: Arc<Shared>,
    signals: Option<Signals>,
    kernel: Option<Child>,
    data: UnixStream,
    guard: Option<Guard>,
    room: Room,
}

/// What its threads have in common.
struct Shared {
    processes: Processes,
    terminal: Option<Terminal>,
    control: UnixStream,
    /// Whether init has said so.
    is_up: AtomicBool,
    /// The signal that ended it.
    signal: AtomicI32,
}

impl Machine {
    /// Boots it.
    pub fn start(
        kernel: &Path,
        room: Room,
        job: &Job,
        memory: u64,
        owner: Option<(u32, u32)>,
        terminal: Option<Terminal>,
    ) -> Result<Self> {
        // The kernel's helpers become our children when it is gone.
        set_child_subreaper(true)?;
        let signals = Signals::new(signals())?;
        let shown = terminal.as_ref().map(Terminal::share).transpose()?;
        let guard = Guard::start(&room, shown)?;
        room.make()?;
        job.save(room.path())?;
        room.furnish(owner).context("cannot furnish the machine's room")?;
        let (data, theirs) = UnixStream::pair()?;
        let (control, orders) = UnixStream::pair()?;
        let lines = [theirs, orders];
        let processes = guard.processes.clone();
        let kernel = kernel::start(
            kernel,
            &room,
            memory,
            owner,
            processes.group(),
            lines,
        )?;
        let shared = Shared {
            processes,
            terminal,
            control,
            is_up: AtomicBool::new(false),
            signal: AtomicI32::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
            signals: Some(signals),
            kernel: Some(kernel),
            data,
            guard: Some(guard),
            room,
        })
    }

    /// Carries input and output until it is off. Gives the command's status.
    pub fn run(mut self, greeting: Option<&str>) -> Result<u8> {
        if let Some(signals) = self.signals.take() {
            let shared = self.shared.clone();
            thread::spawn(move || shared.obey(signals));
        }
        if let Some(mut kernel) = self.kernel.take() {
            let processes = self.shared.processes.clone();
            thread::spawn(move || {
                let _ = kernel.wait();
                processes.end();
            });
        }
        let mut status = None;
        let mut lost = None;
        let [mut stdout, mut stderr] = [
            file(io::stdout()).context("stdout")?,
            file(io::stderr()).context("stderr")?,
        ];
        while let Some((kind, data)) = receive(&mut self.data) {
            match kind {
                Kind::Input => {}
                Kind::Output => {
                    if let Err(error) = stdout.write_all(&data) {
                        self.shared.order(Order::CloseOutput);
                        lost = Some(error);
                    }
                }
                Kind::Errors => {
                    if stderr.write_all(&data).is_err() {
                        self.shared.order(Order::CloseErrors);
                    }
                }
                Kind::Up => self.is_up(greeting)?,
                Kind::Ended => {
                    status = data.first().copied();
                    self.shared.end_later();
                }
                Kind::Failed => {
                    let why = String::from_utf8_lossy(&data).into_owned();
                    status = Some(1);
                    self.shared.restore();
                    note(format_args!("{}: {why}", styled(BAD, "error")));
                    self.shared.end_later();
                }
            }
        }
        self.shared.restore();
        // That nobody reads any more is the command's affair.
        let broken = |error: &io::Error| error.kind() == BrokenPipe;
        if let Some(error) = lost.filter(|error| !broken(error)) {
            return Err(error).context("cannot write to stdout");
        }
        let signal = self.shared.signal.load(Ordering::Relaxed);
        Ok(match (signal, status) {
            (1.., _) => 128 + signal as u8,
            (_, Some(status)) => status,
            _ => {
                self.explain();
                1
            }
        })
    }

    fn is_up(&self, greeting: Option<&str>) -> Result<()> {
        let shared = &self.shared;
        shared.is_up.store(true, Ordering::Relaxed);
        if let (Some(text), Some(_)) = (greeting, &shared.terminal) {
            note(styled(FAINT, text));
        }
        if let Some(terminal) = &shared.terminal {
            terminal.make_raw();
            // It may have changed since the job was written.
            shared.order(terminal.resize());
        }
        let mut line = self.data.try_clone()?;
        let mut stdin = file(io::stdin()).context("stdin")?;
        thread::spawn(move || {
            let mut piece = [0; PIECE];
            loop {
                let length = match stdin.read(&mut piece) {
                    Err(error) if error.kind() == Interrupted => continue,
                    other => other.unwrap_or(0),
                };
                let sent = send(&mut line, Kind::Input, &piece[..length]);
                if length == 0 || sent.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Says why it went before its time.
    fn explain(&self) {
        let what = if self.shared.is_up.load(Ordering::Relaxed) {
            "the machine has ended before the command"
        } else {
            "the machine did not boot"
        };
        let log = fs::read(self.room.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let usual = |line: &&str| USUAL.iter().any(|u| line.starts_with(u));
        let lines = log.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !usual(line));
        let mut lines: Vec<_> = lines.collect();
        // After this one the kernel shows its stack.
        let panic = lines.iter().position(|l| l.starts_with("Kernel panic"));
        lines.truncate(panic.map_or(lines.len(), |line| line + 1));
        note(format_args!("{}: {what}", styled(BAD, "error")));
        for line in &lines[lines.len().saturating_sub(12)..] {
            note(styled(FAINT, format_args!("  it said: {line}")));
        }
        let refused = |line: &str| {
            line.contains("ptrace") && !line.trim().ends_with("OK")
        };
        if log.lines().any(refused) {
            note(
                "hint: it needs ptrace(2), which /proc/sys/kernel/yama/\
                 ptrace_scope, or a container around us, may forbid: 0 or 1 \
                 there, or `docker run --cap-add SYS_PTRACE`",
            );
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.shared.restore();
        self.shared.processes.end();
        // The guard ends with this, and clears away what we could not.
        drop(self.guard.take());
        while wait(WaitOptions::empty()).is_ok() {}
    }
}

impl Shared {
    fn order(&self, order: Order) {
        let _ = order.send(&mut &self.control);
    }

    fn restore(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.restore();
        }
    }

    /// Ends it by force if it is still there then.
    fn end_later(&self) {
        let processes = self.processes.clone();
        thread::spawn(move || {
            thread::sleep(PATIENCE);
            processes.end();
        });
    }

    /// Handles our own signals.
    fn obey(&self, mut signals: Signals) {
        for signal in signals.forever() {
            match (signal, &self.terminal) {
                (SIGCHLD, _) | (SIGWINCH | SIGCONT, None) => {}
                (SIGWINCH, Some(terminal)) => self.order(terminal.resize()),
                (SIGTSTP, _) => {
                    self.restore();
                    let _ = raise(Signal::SIGSTOP);
                }
                (SIGCONT, Some(terminal)) => {
                    if self.is_up.load(Ordering::Relaxed) {
                        terminal.make_raw();
                        self.order(terminal.resize());
                    }
                }
                _ => {
                    self.signal.store(signal, Ordering::Relaxed);
                    if self.is_up.load(Ordering::Relaxed) {
                        self.order(Order::End);
                        self.end_later();
                    } else {
                        self.processes.end();
                    }
                }
            }
        }
    }
}

/// Those that end the machine, unless our caller ignores them, as SIGHUP
/// under nohup(1); and those about the terminal.
fn signals() -> Vec<i32> {
    let ignored = doctor::status::field("SigIgn");
    let ignored = ignored.and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    let ignored = ignored.unwrap_or_default();
    let mut signals = vec![SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP];
    signals.retain(|signal| ignored & (1 << (signal - 1)) == 0);
    signals.extend([SIGCHLD, SIGCONT, SIGWINCH]);
    signals
}

/// A stream without a buffer.
fn file(stream: impl AsFd) -> io::Result<File> {
    let copy: OwnedFd = stream.as_fd().try_clone_to_owned()?;
    Ok(copy.into())
}
