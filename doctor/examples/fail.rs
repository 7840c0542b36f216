//! Does one thing that a container needs and prints what the doctor says when
//! it fails: `cargo run -p doctor --example fail -- unshare user`.
//!
//! The tests run it where it has to fail.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use doctor::Stage;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chroot, getegid, geteuid, pivot_root, sethostname};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

const NONE: Option<&str> = None;

fn main() {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    let mut words: Vec<&OsStr> = words.iter().map(|word| &**word).collect();
    let mut out = io::stdout();
    let line = match attempt(&mut words) {
        Ok(()) => "it works".to_owned(),
        Err(error) => {
            let cause = doctor::cause(&error);
            let name = cause.as_ref().map_or("None", |cause| cause.name());
            let hint = doctor::hint(&error).unwrap_or_default();
            format!("{error:#}\n{name}: {hint}")
        }
    };
    let _ = writeln!(out, "{line}");
}

fn attempt(words: &mut Vec<&OsStr>) -> Result<()> {
    // What comes first spoils what comes after it.
    loop {
        match text(words.first())? {
            "filter" => filter(text(words.get(1))?)?,
            "pretend" => return pretend(&words[1..]),
            "threads" => {
                let sleep = || thread::sleep(Duration::from_secs(60));
                drop(thread::spawn(sleep));
                words.drain(..1);
                continue;
            }
            "--rootfs" => {
                return exec(words.get(2).copied(), words.get(1).copied());
            }

            "exec" => return exec(words.get(1).copied(), None),
            "spawn" => return spawn(words.get(1).copied()),
            _ => break,
        }
        words.drain(..2);
    }
    let stage = stage(words)?;
    perform(&stage, words).context(stage)
}

/// The stage that these words name.
fn stage(words: &[&OsStr]) -> Result<Stage> {
    let path = || words.get(1).context("a path is missing").map(Path::new);
    Ok(match text(words.first())? {
        "unshare" => Stage::Unshare(flags(text(words.get(1))?)?),
        "setgroups" => Stage::MapIds("setgroups"),
        "map" => Stage::MapIds("uid_map"),
        "status" => Stage::ReadStatus,
        "start" => Stage::StartChild,
        "hostname" => Stage::SetHostname(path()?.into()),
        "use" => Stage::UseRoot(path()?.into()),
        "chroot" => Stage::Chroot(path()?.into()),
        "private" => Stage::MakeMountsPrivate,
        "proc" => Stage::MountProc(path()?.into()),
        "bind" => Stage::BindRoot(path()?.into()),
        "pivot" => Stage::PivotRoot(path()?.into()),
        "device" => Stage::MakeDevice(path()?.into()),
        "find" => Stage::FindCgroup,
        "mkdir" | "rmdir" | "write" => Stage::Cgroup(path()?.into()),
        other => bail!("no such stage: {other}"),
    })
}

/// As the steps do it.
fn perform(stage: &Stage, words: &[&OsStr]) -> Result<()> {
    match stage {
        Stage::Unshare(flags) => unshare(*flags)?,
        Stage::MapIds(file) => {
            let (uid, gid) = (geteuid(), getegid());
            unshare(CloneFlags::CLONE_NEWUSER)?;
            fs::write("/proc/self/setgroups", "deny")?;
            if *file == "uid_map" {
                fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
                fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            }
        }
        Stage::ReadStatus => drop(fs::read("/proc/self/status")?),
        Stage::StartChild => {
            let mut child = Command::new("/proc/self/exe");
            child.arg("child").args(words);
            child.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        }
        Stage::SetHostname(name) => {
            unshare(CloneFlags::CLONE_NEWUTS)?;
            sethostname(name)?;
        }
        Stage::UseRoot(root) => {
            ensure!(fs::metadata(root)?.is_dir(), Errno::ENOTDIR);
        }
        Stage::Chroot(root) => chroot(root)?,
        Stage::MakeMountsPrivate => {
            mount(
                NONE,
                "/",
                NONE,
                MsFlags::MS_PRIVATE | MsFlags::MS_REC,
                NONE,
            )?;
        }
        Stage::MountProc(place) => {
            // Like openat2(2) with RESOLVE_NO_SYMLINKS.
            ensure!(!place.is_symlink(), Errno::ELOOP);
            mount(Some("proc"), place, Some("proc"), MsFlags::empty(), NONE)?;
        }
        Stage::BindRoot(root) => {
            mount(Some(root), root, NONE, MsFlags::MS_BIND, NONE)?;
        }
        Stage::PivotRoot(root) => {
            env::set_current_dir(root)?;
            pivot_root(".", ".")?;
        }
        Stage::MakeDevice(place) => {
            let name = place.file_name().context("no name")?;
            let host = Path::new("/dev").join(name);
            File::create(place)?;
            mount(Some(&host), place, NONE, MsFlags::MS_BIND, NONE)?;
        }
        Stage::FindCgroup => {
            fs::read("/proc/self/cgroup")?;
            bail!("there is none");
        }
        Stage::Cgroup(path) => match text(words.first())? {
            "mkdir" => fs::create_dir(path)?,
            "rmdir" => fs::remove_dir(path)?,
            _ => fs::write(path, text(words.get(2))?)?,
        },
        other => bail!("not for {other:?}"),
    }
    Ok(())
}

/// The last step of them all, in our own root or in another one.
fn exec(program: Option<&OsStr>, root: Option<&OsStr>) -> Result<()> {
    let program = program.context("a command is missing")?;
    let mut command = Command::new(program);
    let stage = match root {
        Some(root) => {
            let path = "/usr/bin:/bin:/";
            chroot(root)?;
            env::set_current_dir("/")?;
            command.env("PATH", path);
            Stage::ExecInRoot(program.into(), path.into())
        }
        None => Stage::Exec(program.into()),
    };
    Err(command.exec()).context(stage)
}

/// From step03 on. Unlike execvp(3) it does not try /bin/sh with a file that
/// the kernel does not know what to do with.
fn spawn(program: Option<&OsStr>) -> Result<()> {
    let program = program.context("a command is missing")?;
    let mut child = Command::new(program);
    child.spawn().with_context(|| Stage::Exec(program.into()))?.wait()?;
    Ok(())
}

/// The error alone, where this machine cannot be made to give it.
fn pretend(words: &[&OsStr]) -> Result<()> {
    let errno = match text(words.first())? {
        "EACCES" => Errno::EACCES,
        "EBUSY" => Errno::EBUSY,
        "EINVAL" => Errno::EINVAL,
        "ENOENT" => Errno::ENOENT,
        "EPERM" => Errno::EPERM,
        other => bail!("no such error: {other}"),
    };
    let words = &words[1..];
    let stage = stage(words)?;
    if let Stage::MapIds(_) = stage {
        unshare(CloneFlags::CLONE_NEWUSER)?;
    }
    Err(errno).context(stage)
}

fn flags(names: &str) -> Result<CloneFlags> {
    let flag = |name| {
        Ok(match name {
            "user" => CloneFlags::CLONE_NEWUSER,
            "uts" => CloneFlags::CLONE_NEWUTS,
            "pid" => CloneFlags::CLONE_NEWPID,
            "mnt" => CloneFlags::CLONE_NEWNS,
            "cgroup" => CloneFlags::CLONE_NEWCGROUP,
            other => bail!("no such namespace: {other}"),
        })
    };
    names.split(',').map(flag).collect()
}

/// Refuses a system call with EPERM, as Docker does: always, or for `user`
/// only unshare(2) with CLONE_NEWUSER, as systemd's RestrictNamespaces does.
fn filter(name: &str) -> Result<()> {
    let new_user = CloneFlags::CLONE_NEWUSER.bits() as u64;
    let rules = match name {
        "user" => vec![SeccompRule::new(vec![SeccompCondition::new(
            0,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(new_user),
            new_user,
        )?])?],
        _ => Vec::new(),
    };
    let call = match name {
        "user" | "unshare" => nix::libc::SYS_unshare,
        "mount" => nix::libc::SYS_mount,
        "chroot" => nix::libc::SYS_chroot,
        "pivot_root" => nix::libc::SYS_pivot_root,
        // Somebody else's filter, which has nothing to do with us.
        "reboot" => nix::libc::SYS_reboot,
        other => bail!("no filter for {other}"),
    };
    let filter = SeccompFilter::new(
        [(call, rules)].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(Errno::EPERM as u32),
        env::consts::ARCH.try_into()?,
    )?;
    let filter: seccompiler::BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&filter)?;
    Ok(())
}

fn text<'a>(word: Option<&&'a OsStr>) -> Result<&'a str> {
    let word = word.context("a word is missing")?;
    word.to_str().context("a word is not UTF-8")
}
