//! PID 1 in the machine: furnishes it, starts the command, and carries its
//! input and output over the serial lines.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, sync};
use rustix::process::{WaitOptions, wait};
use rustix::termios::{
    OptionalActions, Winsize as Size, tcdrain, tcgetattr, tcsetattr,
    tcsetwinsize,
};

use super::furnish;
use super::job::{Job, words};
use super::line::{Kind, Order, PIECE, receive, send};

/// PID 1 itself. Never returns: the kernel would panic.
pub fn main(arguments: &[OsString]) -> Result<ExitCode> {
    let mut data = open_line("/dev/ttyS0")?;
    let ended = command(arguments, &data);
    let _ = match ended {
        Ok(status) => send(&mut data, Kind::Ended, &[status]),
        Err(error) => {
            let why = format!("{error:#}");
            send(&mut data, Kind::Failed, why.as_bytes())
        }
    };
    // What is in the line's buffer would be lost.
    let _ = tcdrain(&data);
    reboot(RebootMode::RB_POWER_OFF)?;
    Ok(ExitCode::FAILURE)
}

/// A serial line that changes no byte.
fn open_line(path: &str) -> Result<File> {
    let open = || format!("cannot open {path}");
    let line = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(path)
        .with_context(open)?;
    let mut settings = tcgetattr(&line).with_context(open)?;
    settings.make_raw();
    tcsetattr(&line, OptionalActions::Now, &settings).with_context(open)?;
    Ok(line)
}

/// Runs the command, and gives its status.
fn command(arguments: &[OsString], data: &File) -> Result<u8> {
    let control = open_line("/dev/ttyS1")?;
    let room = Path::new(arguments.first().context("no room")?);
    let job = Job::load(room)?;
    furnish::all(&job)?;
    let mut session = Command::new("/proc/self/exe");
    session
        .args(["vm", "--part", "session", "--"])
        .arg(words(&job.ids))
        .arg(&job.directory)
        .args(&job.command)
        .env_clear()
        .envs(job.variables.iter().cloned());
    let closed: [Arc<AtomicBool>; 2] = Default::default();
    let sender = Arc::new(Mutex::new(data.try_clone()?));
    send(&mut &*data, Kind::Up, &[])?;
    let mut pumps = Vec::new();
    let mut pump = |from: Box<dyn Read + Send>, kind: Kind, n: usize| {
        let (sender, closed) = (sender.clone(), closed[n].clone());
        pumps.push(pump(from, kind, sender, closed));
    };

    let mut terminal = None;
    if let Some((lines, columns)) = job.size {
        let OpenptyResult { master, slave } = pty(lines, columns)?;
        session.stdin(slave.try_clone()?);
        if job.errors_apart {
            session.stderr(Stdio::piped());
        } else {
            session.stderr(slave.try_clone()?);
        }
        session.stdout(slave);
        terminal = Some(File::from(master));
    } else {
        session.stdin(Stdio::piped());
        session.stdout(Stdio::piped());
        session.stderr(Stdio::piped());
    }
    let mut child = session.spawn().context("cannot start /proc/self/exe")?;
    // Our copies of the terminal go with it.
    drop(session);
    if let Some(from) = child.stdout.take() {
        pump(Box::new(from), Kind::Output, 0);
    }
    if let Some(from) = child.stderr.take() {
        pump(Box::new(from), Kind::Errors, 1);
    }
    let input = match &terminal {
        Some(master) => {
            pump(Box::new(master.try_clone()?), Kind::Output, 0);
            Input::Terminal(master.try_clone()?)
        }
        None => Input::Pipe(child.stdin.take()),
    };
    let from = data.try_clone()?;
    thread::spawn(move || feed(from, input));
    thread::spawn(move || obey(control, terminal.as_ref(), &closed));

    let status = reap_until(child.id());
    // What it left behind holds the ends of our pipes.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while wait(WaitOptions::empty()).is_ok() {}
    for pump in pumps {
        let _ = pump.join();
    }
    // What was written to the host's files may still be in our memory.
    sync();
    Ok(status)
}

/// A terminal of that size.
fn pty(lines: u16, columns: u16) -> Result<OpenptyResult> {
    let size =
        Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).context("no pseudo-terminal")?;
    for end in [&pty.master, &pty.slave] {
        // The command gets copies of the one, and must not have the other.
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok(pty)
}

/// Carries output to the launcher until the last writer is gone, or nobody
/// wants it.
fn pump(
    mut from: Box<dyn Read + Send>,
    kind: Kind,
    to: Arc<Mutex<File>>,
    closed: Arc<AtomicBool>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut piece = [0; PIECE];
        // A terminal without programs answers EIO.
        while let Ok(length @ 1..) = from.read(&mut piece) {
            if closed.load(Ordering::Relaxed) {
                return;
            }
            let Ok(mut to) = to.lock() else { return };
            if send(&mut *to, kind, &piece[..length]).is_err() {
                return;
            }
        }
    })
}

/// Where input goes.
enum Input {
    Terminal(File),
    Pipe(Option<ChildStdin>),
}

/// Carries input to the command.
fn feed(mut from: File, mut input: Input) {
    while let Some((kind, data)) = receive(&mut from) {
        match &mut input {
            _ if kind != Kind::Input => {}
            Input::Terminal(master) => {
                let _ = master.write_all(&data);
            }
            Input::Pipe(pipe) => {
                // Its end, or nobody reads it any more.
                let done = data.is_empty()
                    || pipe
                        .as_mut()
                        .is_some_and(|p| p.write_all(&data).is_err());
                if done {
                    *pipe = None;
                }
            }
        }
    }
}

/// Does what the launcher tells.
fn obey(
    mut control: File,
    terminal: Option<&File>,
    closed: &[Arc<AtomicBool>; 2],
) {
    while let Some(order) = Order::receive(&mut control) {
        match order {
            Order::Resize(lines, columns) => {
                let size = Size {
                    ws_row: lines,
                    ws_col: columns,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                if let Some(terminal) = terminal {
                    let _ = tcsetwinsize(terminal, size);
                }
            }
            Order::CloseOutput => closed[0].store(true, Ordering::Relaxed),
            Order::CloseErrors => closed[1].store(true, Ordering::Relaxed),
            Order::End => {
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            }
        }
    }
}

/// Buries whoever has no parent any more, until the command has ended.
fn reap_until(command: u32) -> u8 {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                let ours = u32::try_from(pid.as_raw_nonzero().get());
                if ours == Ok(command) {
                    let signal = status.terminating_signal();
                    let code = status.exit_status();
                    let status = code.or(signal.map(|signal| 128 + signal));
                    return status.map_or(1, |status| status as u8);
                }
            }
            Ok(None) => {}
            Err(_) => return 1,
        }
    }
}
