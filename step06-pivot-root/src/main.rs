//! Step 6: the root swapped, not hidden.
//!
//! `pivot_root` takes the place of `chroot`: the old root is detached, and
//! there is nothing left to climb out to. What still led out, descriptors
//! that our caller left open, is closed; and /dev gets what programs count on,
//! but no disks. What a container may use up is still without a limit.
//!
//! Try `cargo run -p step06-pivot-root -- run ls /dev`.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Error, Result, ensure};
use clap::{Parser, Subcommand};
use doctor::Stage;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_no_new_privs, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getegid, geteuid, getpgid, getpgrp, sethostname};
use nix::unistd::{chdir, close, fchdir, pivot_root, tcgetpgrp, tcsetpgrp};
use signal_hook::consts::signal::*;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;

/// A container in seven steps. Step 6: the root swapped, not hidden.
#[derive(Parser)]
#[command(disable_help_subcommand = true)]
struct Cli {
    /// The host name inside
    #[arg(long, global = true, allow_hyphen_values = true)]
    #[arg(default_value = "container", value_name = "NAME")]
    hostname: OsString,
    /// The root directory inside [default: fs, built when it is not there]
    #[arg(long, global = true, allow_hyphen_values = true)]
    #[arg(value_name = "DIR")]
    rootfs: Option<PathBuf>,
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

/// The namespaces that `run` makes for the container, see namespaces(7).
const NAMESPACES: CloneFlags =
    CloneFlags::CLONE_NEWUTS.union(CloneFlags::CLONE_NEWPID);

/// Where the command is looked up, inside the new root.
const PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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

/// The outer half: starts the inner one and ends with its status.
fn run(cli: &Cli, command: &[OsString]) -> Result<u8> {
    banner(command);
    let root = rootfs::find_or_build(cli.rootfs.as_deref())?;
    let signals = catch_signals()?;
    enter_namespaces()?;
    let mut child = Command::new("/proc/self/exe");
    child.env_clear().envs(environment());
    child.arg("child").arg("--hostname").arg(&cli.hostname);
    child.arg("--rootfs").arg(&root);
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

/// The inner half: PID 1. Furnishes the container and starts the command.
fn child(cli: &Cli, launcher: &str, command: &[OsString]) -> Result<u8> {
    banner(command);
    die_with(launcher)?;
    close_inherited()?;
    let signals = catch_signals()?;
    sethostname(&cli.hostname)
        .with_context(|| Stage::SetHostname(cli.hostname.clone()))?;
    enter_mount_namespace()?;
    enter_root(cli.rootfs.as_deref().unwrap_or(Path::new("fs")))?;
    // Not even a set-user-ID program makes anybody in here more than they are.
    set_no_new_privs().context("cannot refuse new privileges")?;
    if getpgrp() == Pid::this() {
        take_terminal();
    }
    unblock_signals()?;
    match Command::new(&command[0]).args(&command[1..]).spawn() {
        Ok(process) => supervise(process, signals),
        Err(error) => Ok(cannot_run(&command[0], error)),
    }
}

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

/// The environment inside: of the host's, only the terminal's type goes in.
/// PID 1 has the same as the command, which can read it in /proc/1/environ.
fn environment() -> Vec<(&'static str, OsString)> {
    let mut variables = vec![("PATH", PATH.into()), ("HOME", "/root".into())];
    variables.extend(env::var_os("TERM").map(|term| ("TERM", term)));
    variables
}

/// The terminal's settings, if somebody sits there and waits for us. In a
/// pipeline it belongs to others, too.
fn terminal_settings() -> Option<Termios> {
    let settings = tcgetattr(io::stdin()).ok()?;
    let in_foreground = tcgetpgrp(io::stdin()) == Ok(getpgrp());
    (in_foreground && io::stdout().is_terminal()).then_some(settings)
}

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

/// Blocks no signal any more, also none that our caller had blocked: through
/// fork(2) and execve(2) it would stay so in the command.
fn unblock_signals() -> Result<()> {
    SigSet::empty().thread_set_mask().context("cannot unblock signals")
}

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

/// Makes our process group the terminal's foreground one, see tcsetpgrp(3).
fn take_terminal() {
    // This is the kernel's answer to those in the background.
    let refusal = SigSet::from(Signal::SIGTTOU);
    let _ = refusal.thread_block();
    let _ = tcsetpgrp(io::stdin(), getpgrp());
    let _ = refusal.thread_unblock();
}

/// Lets the kernel kill us when the launcher dies, and PID 1 takes all others
/// in its namespace with it. See prctl(2).
fn die_with(launcher: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot die with the launcher")?;
    // Had it died before that line, we would have another parent by now.
    ensure!(own_status("PPid:")? == launcher, "the launcher is gone");
    Ok(())
}

// ANCHOR: close_inherited
/// Closes what our caller left open besides stdin, stdout and stderr: a
/// folder among it would lead past every root, see fchdir(2). Those three
/// stay, so none of them may be one.
fn close_inherited() -> Result<()> {
    let names: Vec<_> = fs::read_dir("/proc/self/fd")
        .and_then(|open| open.map(|entry| Ok(entry?.file_name())).collect())
        .context("cannot list /proc/self/fd")?;
    let numbers = names.iter().filter_map(|name| name.to_str()?.parse().ok());
    for number in numbers.filter(|number: &RawFd| *number > 2) {
        // EBADF for the one that listed the others.
        let _ = close(number);
    }
    for (number, name) in ["stdin", "stdout", "stderr"].iter().enumerate() {
        let is_folder = Path::new(&format!("/proc/self/fd/{number}")).is_dir();
        ensure!(!is_folder, "{name} is a folder, which would lead out");
    }
    Ok(())
}
// ANCHOR_END: close_inherited

/// Takes a mount table of our own, a copy of the host's, and cuts it loose,
/// so that nothing mounted below shows up outside: on systemd hosts `/` is
/// shared, and copies of a shared mount tell each other what happens to them.
/// See mount_namespaces(7).
///
/// The launcher stays in the host's, where it has to clean up. Fails with
/// EINVAL when `/` is not a mount point, as in a plain chroot.
fn enter_mount_namespace() -> Result<()> {
    let namespace = CloneFlags::CLONE_NEWNS;
    unshare(namespace).context(Stage::Unshare(namespace))?;
    let (none, private) = (None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC);
    mount(none, "/", none, private, none).context(Stage::MakeMountsPrivate)
}

// ANCHOR: enter_root
/// Makes `root` our root directory and takes the old one out of our mount
/// table, see pivot_root(2).
///
/// Fails with EINVAL when the current root is not a mount point (a chroot,
/// the initramfs) or one of the two is shared.
fn enter_root(root: &Path) -> Result<()> {
    // By its full name: `.` would still be what lies below the new mount.
    let root = &root
        .canonicalize()
        .with_context(|| Stage::BindRoot(root.to_owned()))?;
    // The new root has to be a mount point. It becomes one by a bind mount on
    // itself; MS_REC, since what is mounted below belongs to it.
    let (bind, none) = (MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>);
    mount(Some(root), root, none, bind, none)
        .with_context(|| Stage::BindRoot(root.to_owned()))?;
    mount_proc(root)?;
    chdir(root).with_context(|| Stage::BindRoot(root.to_owned()))?;
    // The old root now lies on top of the new one, so no folder is needed to
    // put it in. Until it is detached `/..` leads to it, and so could a
    // symlink of the new root's: none may be followed before that.
    pivot_root(".", ".").with_context(|| Stage::PivotRoot(root.to_owned()))?;
    make_devices()?;
    umount2("/..", MntFlags::MNT_DETACH).context(Stage::DetachOldRoot)?;
    chdir("/").context("cannot change to the new root")
}
// ANCHOR_END: enter_root

/// Mounts a proc that shows our PID namespace in the new root, see proc(5).
/// Nobody runs or opens more than data there, hence the flags.
///
/// In a user namespace this fails with EPERM where the host's own /proc is
/// partly hidden, as in Docker: the new one would show what is masked there.
fn mount_proc(root: &Path) -> Result<()> {
    let stage = || Stage::MountProc(root.join("proc"));
    // O_PATH: as chroot(2), it asks for no more than to be let through.
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let folder = open(root, directory, Mode::empty()).with_context(stage)?;
    // A symlink `proc -> /etc` must not lead our mount out of the new root.
    let inside =
        OpenHow::new().flags(directory).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let folder = loop {
        match openat2(&folder, "proc", inside) {
            // A `..` was on the way, and somebody renamed or mounted meanwhile.
            Err(Errno::EAGAIN) => {}
            found => break found.with_context(stage)?,
        }
    };
    let folder = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let (proc, none) = (Some("proc"), None::<&str>);
    mount(proc, folder.as_str(), proc, flags, none).with_context(stage)
}

// ANCHOR: make_devices
/// Puts a new tmpfs on /dev, and on it the few devices that every program
/// counts on. Making device nodes takes more than root in a user namespace,
/// so these are the host's, bind mounted; its disks stay out.
fn make_devices() -> Result<()> {
    let (tmpfs, none) = (Some("tmpfs"), None::<&str>);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(tmpfs, "/dev", tmpfs, flags, Some("mode=755,size=64k"))
        .context(Stage::MakeDevice("/dev".into()))?;
    // From here on by where we stand, not by name: a symlink `dev -> ../etc`,
    // also one that appears at this moment, would lead our files to the host.
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    open("/dev", directory, Mode::empty())
        .and_then(fchdir)
        .context(Stage::MakeDevice("/dev".into()))?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let stage = || Stage::MakeDevice(Path::new("/dev").join(name));
        File::create_new(name).with_context(stage)?;
        let host = Path::new("/../dev").join(name);
        mount(Some(&host), name, none, MsFlags::MS_BIND, none)
            .with_context(stage)?;
    }
    let links =
        [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")];
    for (name, number) in links {
        symlink(format!("/proc/self/fd{number}"), name)
            .with_context(|| Stage::MakeDevice(Path::new("/dev").join(name)))?;
    }
    Ok(())
}
// ANCHOR_END: make_devices

/// Reports why the command did not start. The status is 127 when it was not
/// found, 126 when it was found and cannot be executed, as in a shell.
fn cannot_run(program: &OsString, error: io::Error) -> u8 {
    let status = match error.kind() {
        io::ErrorKind::NotFound => 127,
        // Not even a process to try it in, see fork(2).
        io::ErrorKind::WouldBlock => 125,
        _ => 126,
    };
    let stage = Stage::ExecInRoot(program.clone(), PATH.into());
    report(&Error::new(error).context(stage));
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
