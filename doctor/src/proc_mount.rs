//! What forbids a new proc. In a user namespace the kernel shows no more of
//! `/proc` than can be seen already, see mount_namespaces(7).

use std::path::{Path, PathBuf};

use crate::mounts::{self, Mount};

/// Why the proc that we have is not enough for a new one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Obstacle {
    /// This mount hides a part of it, as Docker does.
    Masked(PathBuf),
    /// This one may only be read, and a new one could be written.
    ReadOnly(PathBuf),
}

/// What is wrong with each proc that we see; `None` when one of them is good,
/// or when we see none: then nothing else can be seen either.
pub fn obstacle() -> Option<Obstacle> {
    let mounts = mounts::all();
    let whole = |one: &&Mount| one.kind == "proc" && one.root == Path::new("/");
    let mut found = None;
    for proc in mounts.iter().filter(whole) {
        let mask = mounts.iter().find(|one| hides(one, proc));
        found = Some(match mask {
            Some(mask) => Obstacle::Masked(mask.point.clone()),
            None if proc.read_only() => Obstacle::ReadOnly(proc.point.clone()),
            None => return None,
        });
    }
    found
}

/// Some directories of proc are there to be mounted on and always empty:
/// what is on them hides nothing.
fn hides(mount: &Mount, proc: &Mount) -> bool {
    let place = mount.point.strip_prefix(&proc.point);
    mount.parent == proc.id
        && !place.is_ok_and(|place| {
            ["sys/fs/binfmt_misc", "fs/nfsd", "openprom"]
                .iter()
                .any(|empty| place == Path::new(empty))
        })
}
