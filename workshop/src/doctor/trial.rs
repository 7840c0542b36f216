//! What a step does, done once in a process of its own, with the same calls
//! in the same order: so it fails where a step fails, and for its reasons.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{self, Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail, ensure};
use clap::ValueEnum;
use doctor::capabilities::{self, Capability};
use doctor::{Stage, status};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::Mode;
use nix::unistd::{
    Pid, chdir, chroot, fchdir, getegid, geteuid, pivot_root, sethostname,
};
use rootfs::Source;
use serde_json::{Value, json};

use super::limits::Limits;
use crate::terminal::{errno, in_words};

/// One thing to try. Each does all that comes before it in a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Trial {
    Start,
    User,
    Maps,
    Uts,
    Pid,
    Mount,
    Cgroup,
    Rootfs,
    Chroot,
    Proc,
    #[value(name = "pivot_root")]
    PivotRoot,
    Devices,
    Limits,
    Cpu,
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// It works, and perhaps there is more to say.
    Works(String),
    /// It does not, for this reason.
    Fails(Complaint),
}

/// Why something does not work.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// What was attempted, and the kernel's answer.
    pub why: String,
    /// The name of the cause that was seen.
    pub cause: Option<String>,
    /// The cause and the way out.
    pub hint: Option<String>,
}

/// The root, as in a step that is not told another one.
const ROOT: &str = "fs";

/// Where a step looks for its command.
const PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a trial may take; its inner half a little less, so that the outer
/// one can still clean up.
const PATIENCE: Duration = Duration::from_secs(4);
const INNER_PATIENCE: Duration = Duration::from_secs(2);

impl Complaint {
    /// Right after the failure, in the process that failed.
    pub fn new(error: &Error) -> Self {
        Self {
            why: in_words(error),
            cause: doctor::cause(error).map(|cause| cause.name().to_owned()),
            hint: doctor::hint(error),
        }
    }

    /// When no root can be made where we are.
    pub fn of_folder(error: &Error) -> Self {
        let hint = match error.chain().find_map(errno) {
            Some(
                Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::ENOENT,
            ) => {
                "nothing can be made in this folder: `cd` to one of your own, \
                 such as your clone of this course"
            }
            Some(Errno::ENOSPC | Errno::EDQUOT) => {
                "there is no room in this folder: `df -h .` shows how much \
                 there was"
            }
            _ => return Self::new(error),
        };
        Self { hint: Some(hint.to_owned()), ..Self::new(error) }
    }

    /// Where no error came with it.
    fn plain(why: impl Into<String>) -> Self {
        Self { why: why.into(), cause: None, hint: None }
    }

    fn to_json(&self) -> Value {
        json!({ "why": self.why, "cause": self.cause, "hint": self.hint })
    }
}

/// Tries it in a process of its own, in this folder.
pub fn attempt(trial: Trial, folder: &Path) -> Outcome {
    let mut command = itself(trial);
    command.current_dir(folder).process_group(0);
    // Where there is no /dev/null a step runs all the same.
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = match command.stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            let error = Error::new(error).context(Stage::StartChild);
            return Outcome::Fails(Complaint::new(&error));
        }
    };
    let pipe = child.stdout.take();
    let status = match wait(&mut child, PATIENCE) {
        Ok(status) => status,
        Err(error) => return Outcome::Fails(Complaint::new(&error)),
    };
    let said = pipe.map(io::read_to_string).and_then(Result::ok);
    let said: Value = said
        .and_then(|said| serde_json::from_str(&said).ok())
        .unwrap_or_default();
    let text = |key: &str| said[key].as_str().map(str::to_owned);
    match text("why") {
        Some(why) => Outcome::Fails(Complaint {
            why,
            cause: text("cause"),
            hint: text("hint"),
        }),
        None if status.success() => {
            Outcome::Works(text("text").unwrap_or_default())
        }
        None => Outcome::Fails(Complaint::plain(format!(
            "the trial ended early ({status})"
        ))),
    }
}

/// Waits, but not for ever.
fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait")? {
            return Ok(status);
        }
        if start.elapsed() > patience {
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            let _ = child.kill();
            child.wait().context("cannot wait")?;
            bail!("no answer within {} seconds", patience.as_secs());
        }
        sleep(Duration::from_millis(1));
    }
}

/// This program once more, for this trial.
fn itself(trial: Trial) -> Command {
    let name = trial.to_possible_value();
    let mut command = Command::new("/proc/self/exe");
    command.arg("doctor").arg("--try");
    command.args(name.as_ref().map(|name| name.get_name()));
    command
}

/// The process that tries: its outer half, or, where it knows its launcher,
/// its inner one.
pub fn run(trial: Trial, launcher: Option<&str>, groups: &[RawFd]) -> ExitCode {
    let result = match launcher {
        Some(launcher) => inner(trial, launcher, groups).map(|()| None),
        None => outer(trial).map(Some),
    };
    let (line, code) = match result {
        Ok(Some(Said::Here(text))) => {
            (json!({ "text": text }), ExitCode::SUCCESS)
        }
        Ok(Some(Said::ByInner)) => return ExitCode::FAILURE,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            let complaint = match trial {
                Trial::Rootfs => Complaint::of_folder(&error),
                _ => Complaint::new(&error),
            };
            (complaint.to_json(), ExitCode::FAILURE)
        }
    };
    let _ = writeln!(io::stdout(), "{line}");
    code
}

/// Who has said what there is to say.
enum Said {
    Here(String),
    ByInner,
}

fn outer(trial: Trial) -> Result<Said> {
    let nothing = Said::Here(String::new());
    fs::read("/proc/self/status").context(Stage::ReadStatus)?;
    if trial == Trial::Rootfs {
        let known = Path::new(ROOT).exists();
        rootfs::find_or_build(None)?;
        return Ok(Said::Here(match (known, Source::choose()) {
            (true, _) => "./fs is there".to_owned(),
            (_, Source::Busybox(_)) => "made of busybox".to_owned(),
            (_, Source::Host) => "made of this machine's programs".to_owned(),
        }));
    }
    let limits = Limits::new(trial.controllers())?;
    enter_namespaces(trial)?;
    if matches!(trial, Trial::User | Trial::Maps) {
        return Ok(nothing);
    }
    let mut child = itself(trial);
    if trial.has_root() {
        child.env_clear().env("PATH", PATH).env("HOME", "/root");
    }
    child.arg("--launcher").arg(process::id().to_string());
    let files = limits.open()?;
    for file in &files {
        child.arg("--join").arg(file.as_raw_fd().to_string());
    }
    let mut child = child.spawn().context(Stage::StartChild)?;
    let status = wait(&mut child, INNER_PATIENCE)?;
    if let Some(signal) = status.signal() {
        bail!("the first process in it was ended by signal {signal}");
    }
    let groups: Vec<_> =
        limits.groups.iter().filter_map(|group| group.parent()).collect();
    let text = match groups.last() {
        Some(group) => format!("in a group below {}", group.display()),
        None => String::new(),
    };
    Ok(if status.success() { Said::Here(text) } else { Said::ByInner })
}

impl Trial {
    /// What step07 limits with, always and when it is asked to. All at once:
    /// version 2 hands some of them down where it hands down no others.
    fn controllers(self) -> &'static [&'static str] {
        match self {
            Self::Limits => &["pids", "memory"],
            Self::Cpu => &["pids", "memory", "cpu"],
            _ => &[],
        }
    }

    /// Whether it is about another root directory.
    pub fn has_root(self) -> bool {
        matches!(
            self,
            Self::Chroot | Self::Proc | Self::PivotRoot | Self::Devices
        )
    }

    fn namespaces(self) -> CloneFlags {
        match self {
            Self::Start => CloneFlags::empty(),
            Self::User | Self::Maps => CloneFlags::CLONE_NEWUSER,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
            _ => CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWPID,
        }
    }
}

fn enter_namespaces(trial: Trial) -> Result<()> {
    let mut namespaces = trial.namespaces();
    if namespaces.is_empty() {
        return Ok(());
    }
    if capabilities::effective(Capability::SysAdmin) != Some(true) {
        namespaces |= CloneFlags::CLONE_NEWUSER;
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(namespaces).context(Stage::Unshare(namespaces))?;
    let maps = namespaces.contains(CloneFlags::CLONE_NEWUSER);
    if maps && trial != Trial::User {
        write_map("setgroups", "deny")?;
        write_map("gid_map", &format!("0 {gid} 1"))?;
        write_map("uid_map", &format!("0 {uid} 1"))?;
    }
    Ok(())
}

fn write_map(file: &'static str, line: &str) -> Result<()> {
    fs::write(format!("/proc/self/{file}"), line).context(Stage::MapIds(file))
}

fn inner(trial: Trial, launcher: &str, groups: &[RawFd]) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot die with the launcher")?;
    let parent = status::field("PPid");
    ensure!(parent.as_deref() == Some(launcher), "the launcher is gone");
    if trial == Trial::Start {
        return Ok(());
    }
    for file in groups {
        fs::write(format!("/proc/self/fd/{file}"), "0")
            .context("cannot join the control group")?;
    }
    if trial == Trial::Cgroup {
        enter_namespace(CloneFlags::CLONE_NEWCGROUP)?;
    }
    let name = OsString::from("container");
    sethostname(&name).with_context(|| Stage::SetHostname(name))?;
    let root = Path::new(ROOT);
    if trial == Trial::Chroot {
        chroot(root).with_context(|| Stage::Chroot(root.to_owned()))?;
        chdir("/").context("cannot change to the new root")?;
    }
    if matches!(trial, Trial::Mount | Trial::Proc) {
        enter_mount_namespace()?;
    }
    if trial == Trial::Proc {
        mount_proc(root)?;
    }
    if matches!(trial, Trial::PivotRoot | Trial::Devices) {
        enter_mount_namespace()?;
        swap_root(root, trial)?;
    }
    match trial {
        Trial::Chroot | Trial::Devices => run_shell(),
        _ => Ok(()),
    }
}

fn enter_namespace(kind: CloneFlags) -> Result<()> {
    unshare(kind).context(Stage::Unshare(kind))
}

fn enter_mount_namespace() -> Result<()> {
    enter_namespace(CloneFlags::CLONE_NEWNS)?;
    let (none, private) = (None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC);
    mount(none, "/", none, private, none).context(Stage::MakeMountsPrivate)
}

fn mount_proc(root: &Path) -> Result<()> {
    let stage = || Stage::MountProc(root.join("proc"));
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let folder = open(root, directory, Mode::empty()).with_context(stage)?;
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

fn swap_root(root: &Path, trial: Trial) -> Result<()> {
    let root = &root
        .canonicalize()
        .with_context(|| Stage::BindRoot(root.to_owned()))?;
    let (bind, none) = (MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>);
    mount(Some(root), root, none, bind, none)
        .with_context(|| Stage::BindRoot(root.to_owned()))?;
    mount_proc(root)?;
    chdir(root).with_context(|| Stage::BindRoot(root.to_owned()))?;
    pivot_root(".", ".").with_context(|| Stage::PivotRoot(root.to_owned()))?;
    if trial == Trial::Devices {
        make_devices()?;
    }
    umount2("/..", MntFlags::MNT_DETACH).context(Stage::DetachOldRoot)?;
    chdir("/").context("cannot change to the new root")
}

fn make_devices() -> Result<()> {
    let (tmpfs, none) = (Some("tmpfs"), None::<&str>);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(tmpfs, "/dev", tmpfs, flags, Some("mode=755,size=64k"))
        .context(Stage::MakeDevice("/dev".into()))?;
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
    symlink("/proc/self/fd", "fd")
        .with_context(|| Stage::MakeDevice("/dev/fd".into()))
}

/// A root in which nothing can be executed is none.
fn run_shell() -> Result<()> {
    let shell = OsString::from("sh");
    let status = Command::new(&shell)
        .args(["-c", "exit 0"])
        .status()
        .with_context(|| Stage::ExecInRoot(shell, PATH.into()))?;
    ensure!(status.success(), "its shell ended with {status}");
    Ok(())
}
