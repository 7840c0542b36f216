//! What a Linux machine has beside its files.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::unistd::sethostname;

use super::job::{Job, variable};

/// The control group of the session, which can be divided by whoever is in
/// its leaf.
const SESSION: &str = "/sys/fs/cgroup/session";

/// Where the command starts: a group that has processes in it cannot hand
/// controllers down.
pub const LEAF: &str = "/sys/fs/cgroup/session/shell";

/// Makes it all.
pub fn all(job: &Job) -> Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let quiet = plain | MsFlags::MS_NOEXEC;
    let dev = MsFlags::MS_NOSUID;
    make("proc", "/proc", quiet, "")?;
    make("sysfs", "/sys", quiet, "")?;
    // Most kernels have done this one themselves.
    if !Path::new("/dev/ttyS0").exists() {
        make("devtmpfs", "/dev", dev, "mode=755")?;
    }
    make("devpts", "/dev/pts", dev, "gid=5,mode=620,ptmxmode=666")?;
    make("tmpfs", "/dev/shm", plain, "mode=1777")?;
    for (name, target) in
        [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")]
    {
        let _ = symlink(
            format!("/proc/self/fd{target}"),
            Path::new("/dev").join(name),
        );
    }
    hide("/run", "mode=755", job)?;
    hide("/tmp", "mode=1777", job)?;
    make("cgroup2", "/sys/fs/cgroup", quiet, "")?;
    groups(&job.ids).context("cannot make control groups")?;
    let name = "vm";
    sethostname(name)
        .with_context(|| format!("cannot set the host name to {name:?}"))?;
    // Up, see netdevice(7): IFF_UP | IFF_LOOPBACK.
    let _ = fs::write("/sys/class/net/lo/flags", "0x9");
    // As on a machine with systemd.
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, shared, None::<&str>)
        .context("cannot make the mounts shared")
}

/// Mounts a new file system of that kind.
fn make(kind: &str, on: &str, flags: MsFlags, options: &str) -> Result<()> {
    if !Path::new(on).is_dir() {
        fs::create_dir(on).with_context(|| format!("cannot make {on}"))?;
    }
    mount(Some(kind), on, Some(kind), flags, Some(options))
        .with_context(|| format!("cannot mount {kind} on {on}"))
}

/// Mounts a tmpfs on a folder, so that nothing in there is written to the
/// host; and lets through what the command cannot do without.
fn hide(folder: &str, options: &str, job: &Job) -> Result<()> {
    let needed = needed(folder, job);
    if needed.contains(Path::new("")) {
        return Ok(());
    }
    let hidden =
        File::open(folder).with_context(|| format!("cannot open {folder}"))?;
    let old = format!("/proc/self/fd/{}", hidden.as_raw_fd());
    let old = Path::new(&old);
    make("tmpfs", folder, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, options)?;
    for name in needed {
        let (from, to) = (old.join(&name), Path::new(folder).join(&name));
        through(&from, &to)
            .with_context(|| format!("cannot let {} through", to.display()))?;
    }
    Ok(())
}

/// The names in a folder that paths which matter begin with; an empty one for
/// the folder itself.
fn needed(folder: &str, job: &Job) -> BTreeSet<PathBuf> {
    let value = |name| variable(&job.variables, name).map(OsString::from);
    let mut paths = vec![job.directory.clone()];
    for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"] {
        paths.extend(value(name).map(PathBuf::from));
    }
    let path = value("PATH").unwrap_or_default();
    paths.extend(std::env::split_paths(&path));
    let real: Vec<_> =
        paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
    paths.extend(real);
    paths
        .iter()
        .filter_map(|path| path.strip_prefix(folder).ok())
        .map(|path| path.iter().take(1).collect())
        .collect()
}

/// Makes what is at `from` appear at `to`.
fn through(from: &Path, to: &Path) -> Result<()> {
    let kind = match from.symlink_metadata() {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if kind.is_symlink() {
        return Ok(symlink(fs::read_link(from)?, to)?);
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
    } else {
        File::create(to)?;
    }
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(from), to, None::<&str>, bind, None::<&str>)?)
}

/// A group that hands controllers down, and a leaf in it; both belong to the
/// user, as a group that systemd delegates, see cgroups(7).
fn groups(ids: &[u32]) -> Result<()> {
    let [root, session, leaf] =
        ["/sys/fs/cgroup", SESSION, LEAF].map(Path::new);
    fs::create_dir(session)?;
    fs::create_dir(leaf)?;
    for group in [root, session] {
        let file = group.join("cgroup.subtree_control");
        fs::write(file, "+cpu +memory +pids")?;
    }
    let [uid, gid, ..] = *ids else { return Ok(()) };
    for group in [session, leaf] {
        for file in
            ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]
        {
            chown(group.join(file), Some(uid), Some(gid))?;
        }
    }
    Ok(())
}
