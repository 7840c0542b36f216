//! The stages of a launch that can fail.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use nix::sched::CloneFlags;

/// What a step was doing when it failed: the context of its errors, and what
/// [`hint`](crate::hint) starts from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stage {
    /// `unshare(2)` with these flags.
    Unshare(CloneFlags),
    /// Writing `setgroups`, `gid_map` or `uid_map` of the new user namespace,
    /// see user_namespaces(7).
    MapIds(&'static str),
    /// Starting `/proc/self/exe child`.
    StartChild,
    /// `sethostname(2)` with this name.
    SetHostname(OsString),
    /// Looking at this root before anything else is done.
    UseRoot(PathBuf),
    /// `chroot(2)` into this directory.
    Chroot(PathBuf),
    /// Making every mount private, see mount_namespaces(7).
    MakeMountsPrivate,
    /// Mounting proc on this directory.
    MountProc(PathBuf),
    /// Bind mounting this root on itself, so that it is a mount point.
    BindRoot(PathBuf),
    /// `pivot_root(2)` into this directory.
    PivotRoot(PathBuf),
    /// Detaching the old root with `umount2(2)`.
    DetachOldRoot,
    /// Mounting a tmpfs on `/dev`, or making this device in it.
    MakeDevice(PathBuf),
    /// Finding the launcher's own cgroups.
    FindCgroup,
    /// Making or removing this cgroup, or a file below `/sys/fs/cgroup`.
    Cgroup(PathBuf),
    /// Running this command, found by `execvp(3)` in our own PATH.
    Exec(OsString),
    /// Running this command, looked up inside the root in this PATH.
    ExecInRoot(OsString, OsString),
    /// Reading `/proc/self/status`, see proc_pid_status(5).
    ReadStatus,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unshare(flags) => {
                write!(f, "cannot enter new namespaces ({})", names(*flags))
            }
            Self::MapIds(file) => write!(f, "cannot write /proc/self/{file}"),
            Self::StartChild => write!(f, "cannot start /proc/self/exe"),
            Self::SetHostname(name) => {
                write!(f, "cannot set the host name to {name:?}")
            }
            Self::UseRoot(root) => {
                write!(f, "cannot use {root:?} as the root")
            }
            Self::Chroot(root) => write!(f, "cannot chroot to {root:?}"),
            Self::MakeMountsPrivate => {
                write!(f, "cannot make the mount table private")
            }
            Self::MountProc(dir) => write!(f, "cannot mount proc on {dir:?}"),
            Self::BindRoot(root) => {
                write!(f, "cannot bind mount {root:?} on itself")
            }
            Self::PivotRoot(root) => write!(f, "cannot pivot_root to {root:?}"),
            Self::DetachOldRoot => write!(f, "cannot detach the old root"),
            Self::MakeDevice(path) => write!(f, "cannot make {path:?}"),
            Self::FindCgroup => write!(f, "cannot find our own cgroup"),
            Self::Cgroup(path) => write!(f, "cannot set up {path:?}"),
            Self::Exec(command) | Self::ExecInRoot(command, _) => {
                write!(f, "cannot run {command:?}")
            }
            Self::ReadStatus => write!(f, "cannot read /proc/self/status"),
        }
    }
}

/// The flags by the names that clone(2) gives them.
fn names(flags: CloneFlags) -> String {
    let names: Vec<_> = flags.iter_names().map(|(name, _)| name).collect();
    names.join(" | ")
}
