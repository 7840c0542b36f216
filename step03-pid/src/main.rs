//! Step 3: process numbers of its own.
//!
//! `child` is now PID 1 of a new PID namespace and does what PID 1 has to: it
//! starts the command, passes signals on, reaps orphans, and when it ends,
//! so do all. `ps` still shows the host: it reads /proc, and the files are
//! the host's.
//!
//! Try `cargo run -p step03-pid -- run sh -c 'echo $$'`.

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{self, Child, Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Error, Result, ensure};
use clap::{Parser, Subcommand};
use doctor::Stage;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getegid, geteuid, getpgid, getpgrp, sethostname};
use nix::unistd::{tcgetpgrp, tcsetpgrp};
use signal_hook::consts::signal::*;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;

/// A container in seven steps. Step 3: process numbers of its own.
#[derive(Parser)]
#[command(disable_help_subcommand = true)]
struct Cli {
    /// The host name inside
    #[arg(long, global = true, allow_hyphen_values = true)]
    #[arg(default_value = "container", value_name = "NAME")]
    hostname: OsString,
    #[command(subcommand)]
    half: Half,
}

/// The two halves of every step.
#[derive(Subcommand)]
enum Half {
    /// Run a command in a container
    Run {
        /// The command and its arguments
        #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
        command: Vec<OsString>,
    },
    /// The first process inside, started by `run`
    #[command(hide = true)]
    Child {
        #[arg(long)]
        launcher: String,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<OsString>,
    },
}

// ANCHOR: NAMESPACES
/// The namespaces that `run` makes for the container, see namespaces(7).
const NAMESPACES: CloneFlags =
    CloneFlags::CLONE_NEWUTS.union(CloneFlags::CLONE_NEWPID);
// ANCHOR_END: NAMESPACES

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.half {
        Half::Run { command } => run(&cli, command),
        Half::Child { launcher, command } => child(&cli, launcher, command),
    };
    let status = result.unwrap_or_else(|error| {
        report(&error);
        125
    });
    ExitCode::from(status)
}

// ANCHOR: run
/// The outer half: starts the inner one and ends with its status.
fn run(cli: &Cli, command: &[OsString]) -> Result<u8> {
    banner(command);
    let signals = catch_signals()?;
    enter_namespaces()?;
    let mut child = Command::new("/proc/self/exe");
    child.arg("child").arg("--hostname").arg(&cli.hostname);
    child.arg("--launcher").arg(own_status("Pid:")?);
    child.arg("--").args(command);
    let terminal = terminal_settings();
    if terminal.is_some() {
        child.process_group(0);
    }
    let child = child.spawn().context(Stage::StartChild)?;
    let status = supervise(child, signals);
    restore_terminal(terminal);
    status
}
// ANCHOR_END: run

// ANCHOR: child
/// The inner half: PID 1. Furnishes the container and starts the command.
fn child(cli: &Cli, launcher: &str, command: &[OsString]) -> Result<u8> {
    banner(command);
    die_with(launcher)?;
    let signals = catch_signals()?;
    sethostname(&cli.hostname)
        .with_context(|| Stage::SetHostname(cli.hostname.clone()))?;
    if getpgrp() == Pid::this() {
        take_terminal();
    }
    unblock_signals()?;
    match Command::new(&command[0]).args(&command[1..]).spawn() {
        Ok(process) => supervise(process, signals),
        Err(error) => Ok(cannot_run(&command[0], error)),
    }
}
// ANCHOR_END: child

/// Says who we are. The command has to run even when nobody can read this.
fn banner(command: &[OsString]) {
    // In one write(2), so that no other line can come in between.
    let line = format!("running {command:?} as {}\n", process::id());
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Catches the signals that are meant for the command, and SIGCHLD, which
/// says that it has ended; but none before somebody is there to pass it on.
fn catch_signals() -> Result<SignalsInfo<WithOrigin>> {
    // Our child starts with them blocked, too: it would miss what comes early.
    SigSet::all().thread_block().context("cannot block signals")?;
    // What our caller ignores stays ignored, as SIGHUP under nohup(1).
    let ignored = u64::from_str_radix(&own_status("SigIgn:")?, 16)?;
    let mut ours = vec![SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
    ours.retain(|signal| ignored & (1 << (signal - 1)) == 0);
    ours.push(SIGCHLD);
    SignalsInfo::new(ours).context("cannot catch signals")
}

/// A line of `/proc/self/status`, see proc(5).
fn own_status(name: &str) -> Result<String> {
    let status =
        fs::read_to_string("/proc/self/status").context(Stage::ReadStatus)?;
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    let value = value.with_context(|| format!("no {name} for ourselves"))?;
    Ok(value.trim().to_owned())
}

/// Leaves the host's namespaces for new ones, see unshare(2).
///
/// Without CAP_SYS_ADMIN a user namespace comes first: in it we have every
/// capability, over what belongs to it and nothing else. Fails with EPERM
/// where that is forbidden, and with ENOSPC at the limit of `user.max_*`.
fn enter_namespaces() -> Result<()> {
    if has_cap_sys_admin()? {
        return unshare(NAMESPACES).context(Stage::Unshare(NAMESPACES));
    }
    let (uid, gid) = (geteuid(), getegid());
    let namespaces = NAMESPACES | CloneFlags::CLONE_NEWUSER;
    unshare(namespaces).context(Stage::Unshare(namespaces))?;
    // In this order: gid_map is refused as long as setgroups(2), with which
    // we could drop a group that denies us a file, is allowed.
    write_map("setgroups", "deny")?;
    write_map("gid_map", &format!("0 {gid} 1"))?;
    write_map("uid_map", &format!("0 {uid} 1"))
}

/// Whether the kernel would let us unshare. It asks for the capability, not
/// for uid 0: root in Docker is uid 0 and lacks it. See capabilities(7).
fn has_cap_sys_admin() -> Result<bool> {
    let capabilities = own_status("CapEff:")?;
    let capabilities = u64::from_str_radix(&capabilities, 16)?;
    Ok(capabilities & (1 << 21) != 0)
}

/// Writes one of the files that say who we are in our user namespace, see
/// user_namespaces(7). `0 1000 1` means: 0 inside is 1000 outside, one id.
fn write_map(file: &'static str, line: &str) -> Result<()> {
    fs::write(format!("/proc/self/{file}"), line).context(Stage::MapIds(file))
}

// ANCHOR: terminal_settings
/// The terminal's settings, if somebody sits there and waits for us. In a
/// pipeline it belongs to others, too.
fn terminal_settings() -> Option<Termios> {
    let settings = tcgetattr(io::stdin()).ok()?;
    let in_foreground = tcgetpgrp(io::stdin()) == Ok(getpgrp());
    (in_foreground && io::stdout().is_terminal()).then_some(settings)
}
// ANCHOR_END: terminal_settings

// ANCHOR: supervise
/// Passes signals on to `process` until it has ended, and gives its status.
fn supervise(
    mut process: Child,
    mut signals: SignalsInfo<WithOrigin>,
) -> Result<u8> {
    unblock_signals()?;
    let pid = Pid::from_raw(process.id() as i32);
    loop {
        for origin in signals.wait() {
            match (origin.signal, origin.process) {
                (SIGCHLD, _) => {
                    let ended = process.try_wait().context("cannot wait")?;
                    if let Some(status) = ended {
                        return Ok(exit_code(status));
                    }
                    reap_orphans(pid);
                    continue_stopped(pid);
                }
                // A Ctrl-C has no sender: the terminal gives it to a whole
                // process group, and whoever is in ours has got it already.
                (SIGINT | SIGQUIT, None)
                    if getpgid(Some(pid)) == Ok(getpgrp()) => {}
                (signal, _) => _ = kill(pid, Signal::try_from(signal)?),
            }
        }
    }
}
// ANCHOR_END: supervise

/// Blocks no signal any more, also none that our caller had blocked: through
/// fork(2) and execve(2) it would stay so in the command.
fn unblock_signals() -> Result<()> {
    SigSet::empty().thread_set_mask().context("cannot unblock signals")
}

// ANCHOR: reap_orphans
/// Waits for those whose parents are dead: they are children of PID 1 now,
/// and without this they would stay zombies. See pid_namespaces(7).
fn reap_orphans(command: Pid) {
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    let look = ended | WaitPidFlag::WNOWAIT;
    // The status of the command is not ours to take.
    while waitid(Id::Pid(command), look) == Ok(WaitStatus::StillAlive) {
        match waitid(Id::All, look).map(|status| status.pid()) {
            Ok(Some(pid)) if pid != command => _ = waitid(Id::Pid(pid), ended),
            Ok(_) => return,
            // EINVAL: nix has no name for the real-time signal that it was.
            Err(_) => _ = waitid(Id::All, ended),
        }
    }
}
// ANCHOR_END: reap_orphans

// ANCHOR: continue_stopped
/// Continues the command when Ctrl-Z has stopped it, or it has stopped itself,
/// as vi does then. Our caller waits for the launcher and would not hear of it.
fn continue_stopped(command: Pid) {
    // In a group with the launcher both are stopped, and may be.
    if getpgrp() != Pid::from_raw(1) {
        return;
    }
    let stopped = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
    if let Ok(WaitStatus::Stopped(_, Signal::SIGTSTP | Signal::SIGSTOP)) =
        waitid(Id::Pid(command), stopped)
    {
        // 0 is our whole group, which the command may have left. See kill(2).
        for whom in [Pid::from_raw(0), command] {
            let _ = kill(whom, Signal::SIGCONT);
        }
    }
}
// ANCHOR_END: continue_stopped

/// The status that a shell would give: the command's own, or 128 + N when
/// signal N ended it.
fn exit_code(status: ExitStatus) -> u8 {
    let signal = || status.signal().map(|number| 128 + number);
    let code = status.code().or_else(signal);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(125)
}

/// Takes the terminal back and gives it the settings from before: a command
/// that is killed cannot. So `run stty -echo` changes nothing that lasts.
fn restore_terminal(settings: Option<Termios>) {
    let front = tcgetpgrp(io::stdin());
    let (Some(settings), Ok(front)) = (settings, front) else { return };
    // After Ctrl-Z and `bg` it is somebody else who has it in use.
    if front == getpgrp() || killpg(front, None) == Err(Errno::ESRCH) {
        take_terminal();
        // At once: what is still to be shown may wait for a Ctrl-Q.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &settings);
    }
}

// ANCHOR: take_terminal
/// Makes our process group the terminal's foreground one, see tcsetpgrp(3).
fn take_terminal() {
    // This is the kernel's answer to those in the background.
    let refusal = SigSet::from(Signal::SIGTTOU);
    let _ = refusal.thread_block();
    let _ = tcsetpgrp(io::stdin(), getpgrp());
    let _ = refusal.thread_unblock();
}
// ANCHOR_END: take_terminal

// ANCHOR: die_with
/// Lets the kernel kill us when the launcher dies, and PID 1 takes all others
/// in its namespace with it. See prctl(2).
fn die_with(launcher: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot die with the launcher")?;
    // Had it died before that line, we would have another parent by now.
    ensure!(own_status("PPid:")? == launcher, "the launcher is gone");
    Ok(())
}
// ANCHOR_END: die_with

/// Reports why the command did not start. The status is 127 when it was not
/// found, 126 when it was found and cannot be executed, as in a shell.
fn cannot_run(program: &OsString, error: io::Error) -> u8 {
    let status = match error.kind() {
        io::ErrorKind::NotFound => 127,
        // Not even a process to try it in, see fork(2).
        io::ErrorKind::WouldBlock => 125,
        _ => 126,
    };
    report(&Error::new(error).context(Stage::Exec(program.clone())));
    status
}

/// One line on stderr: what was attempted, and the kernel's answer by name;
/// then the cause and the way out, if the doctor sees one.
fn report(error: &Error) {
    let mut line = env!("CARGO_PKG_NAME").to_owned();
    for cause in error.chain() {
        let number = cause.downcast_ref::<io::Error>();
        let errno = match number.and_then(io::Error::raw_os_error) {
            Some(number) => Some(Errno::from_raw(number)),
            None => cause.downcast_ref::<Errno>().copied(),
        };
        line += &match errno {
            Some(errno) => format!(": {} ({errno:?})", errno.desc()),
            None => format!(": {cause}"),
        };
    }
    if let Some(hint) = doctor::hint(error) {
        line += &format!("\nhint: {hint}");
    }
    let _ = writeln!(io::stderr(), "{line}");
}
