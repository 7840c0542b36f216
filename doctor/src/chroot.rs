//! Whether we are in a chroot. The kernel does not say so, yet it shows.

use std::fs;
use std::path::{Path, PathBuf};

use crate::mounts;

/// How a chroot shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Sign {
    /// Our `/` is a directory inside a mount, not the top of one.
    NoMountAtRoot,
    /// Our `/` is a mount that this process sees on another directory: so
    /// `/` is not where the mount namespace begins.
    SeenElsewhere {
        /// Who sees it, as `/proc` names it.
        pid: String,
        /// Where it sees our root.
        point: PathBuf,
    },
}

/// The first sign; `None` also when `/proc` does not tell, or when every
/// process that it shows is in the same chroot.
pub fn sign() -> Option<Sign> {
    let mounts = mounts::all();
    if mounts.is_empty() {
        return None;
    }
    let root = mounts.iter().rfind(|one| one.point == Path::new("/"));
    let Some(root) = root else {
        return Some(Sign::NoMountAtRoot);
    };
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().into_string().ok()?;
        pid.parse::<u32>().ok()?;
        let theirs = mounts::read(&pid).into_iter();
        let mut theirs = theirs.filter(|one| one.point != Path::new("/"));
        let point = theirs.find(|one| one.id == root.id)?.point;
        Some(Sign::SeenElsewhere { pid, point })
    })
}
