//! What is wrong with the way to a directory.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess, geteuid};

use crate::cause::{Cause, quoted};
use crate::status;

/// The first part of this path that does not exist.
pub fn missing(path: &Path) -> Option<PathBuf> {
    let absent = |part: &Path| {
        let answer = fs::symlink_metadata(part);
        answer.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    };
    parts(path).into_iter().find(|part| absent(part))
}

/// The first part of this path that is a link to what does not exist, and
/// where it leads.
pub fn dangling(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let absent = |part: &Path| {
        let answer = fs::metadata(part);
        answer.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    };
    let mut parts = parts(path).into_iter();
    let link = parts.find(|part| part.is_symlink() && absent(part))?;
    let target = link.parent()?.join(fs::read_link(&link).ok()?);
    Some((link, target))
}

/// The first part of this path that exists and is no directory.
pub fn not_a_directory(path: &Path) -> Option<PathBuf> {
    let other = |part: &Path| fs::metadata(part).is_ok_and(|it| !it.is_dir());
    parts(path).into_iter().find(|part| other(part))
}

/// The first directory on this path that does not let us through.
pub fn closed(path: &Path) -> Option<PathBuf> {
    let mut parts = parts(path).into_iter();
    parts.find(|part| {
        part.is_dir() && eaccess(part, AccessFlags::X_OK) == Err(Errno::EACCES)
    })
}

/// The same as a cause.
pub(crate) fn closed_to_us(path: &Path) -> Option<Cause> {
    let path = quoted(closed(path)?);
    Some(Cause::DirectoryClosed { path, uid: us() })
}

/// Who it is that is not let through.
pub(crate) fn us() -> String {
    let uid = status::uid_outside();
    uid.unwrap_or_else(|| geteuid().as_raw()).to_string()
}

/// `a`, `a/b`, `a/b/c`, with where we are or `/` before them.
fn parts(path: &Path) -> Vec<PathBuf> {
    let here = |part: &Path| part.as_os_str().is_empty();
    let parts = path.ancestors().map(|part| match part {
        part if here(part) => PathBuf::from("."),
        part => part.to_owned(),
    });
    let mut parts: Vec<_> = parts.collect();
    parts.reverse();
    parts
}
