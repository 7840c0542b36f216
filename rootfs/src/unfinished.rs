//! The directory beside the target in which a root is built.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::mkdtemp;

/// A directory that nobody takes for a finished root, and that goes away
/// unless it is renamed.
///
/// Its builder holds a lock on it. One that a killed builder left behind is
/// locked by nobody: the next build removes it.
pub(crate) struct Unfinished {
    path: PathBuf,
    /// None where the file system has no locks: nothing is swept up there,
    /// since the sweeper cannot lock either.
    _lock: Option<Flock<File>>,
}

impl Unfinished {
    /// Makes a new, empty one, on the same file system as `target` will be.
    pub(crate) fn beside(target: &Path) -> Result<Unfinished> {
        let (parent, prefix) =
            split(target).with_context(|| format!("cannot make {target:?}"))?;
        sweep(parent, &prefix);
        let mut template = prefix;
        template.push("XXXXXX");
        loop {
            let path = mkdtemp(&parent.join(&template)).with_context(|| {
                format!("cannot make a directory beside {target:?}")
            })?;
            let mut unfinished = Unfinished { path, _lock: None };
            let path = &unfinished.path;
            // Even the umask 0777 does not keep us out.
            let mode = Permissions::from_mode(0o700);
            match fs::set_permissions(path, mode).and_then(|()| lock(path)) {
                Ok(lock) if is_same(&lock, path) => {
                    unfinished._lock = Some(lock);
                }
                // A sweeper was quicker than our lock: start again.
                Ok(_) => continue,
                Err(e) if is_swept(&e) => continue,
                Err(_) => {}
            }
            return Ok(unfinished);
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the finished root where it belongs.
    ///
    /// rename(2) of a directory replaces nothing but an empty directory, so
    /// of two builders the second gets ENOTEMPTY. RENAME_NOREPLACE, which
    /// some file systems lack, would add nothing.
    pub(crate) fn rename(mut self, target: &Path) -> io::Result<()> {
        fs::set_permissions(&self.path, Permissions::from_mode(0o755))?;
        fs::rename(&self.path, target)?;
        self.path.clear();
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = remove_all(&self.path);
        }
    }
}

/// The directory that holds `target`, and what names of unfinished ones in
/// it begin with: for `fs` it is `.fs.unfinished.`.
fn split(target: &Path) -> io::Result<(&Path, OsString)> {
    let (Some(name), Some(parent)) = (target.file_name(), target.parent())
    else {
        return Err(Errno::EINVAL.into());
    };
    let parent = match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    };
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".unfinished.");
    Ok((parent, prefix))
}

/// Removes what killed builders left behind. That it cannot is no error: it
/// may be somebody else's.
fn sweep(parent: &Path, prefix: &OsString) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours = name.len() == prefix.len() + "XXXXXX".len()
            && name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes())
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_ours {
            continue;
        }
        if let Ok(_lock) = lock(&entry.path()) {
            let _ = remove_all(&entry.path());
        }
    }
}

/// Removes a directory and all that is in it, however deep.
///
/// [`fs::remove_dir_all`] holds a descriptor for every level, and of those an
/// archive can have more than we may have open files. Then what lies deeper
/// is brought up first, one level after the other.
fn remove_all(path: &Path) -> io::Result<()> {
    if fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                // A new name; rename(2) puts a directory on an empty one.
                let up = mkdtemp(&path.join("XXXXXX"))?;
                fs::rename(entry.path(), &up)?;
                folders.push(up);
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        if folder != path {
            fs::remove_dir(&folder)?;
        }
    }
    fs::remove_dir(path)
}

fn lock(path: &Path) -> io::Result<Flock<File>> {
    Flock::lock(File::open(path)?, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| errno.into())
}

/// Whether the locked directory still is the one with that name.
fn is_same(lock: &File, path: &Path) -> bool {
    let Ok(locked) = lock.metadata() else {
        return false;
    };
    let inode = |of: &fs::Metadata| (of.dev(), of.ino());
    fs::metadata(path).is_ok_and(|named| inode(&named) == inode(&locked))
}

fn is_swept(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, WouldBlock};
    matches!(error.kind(), NotFound | WouldBlock)
}
