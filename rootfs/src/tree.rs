//! Writing into a root without ever leaving it.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, mkdirat, mknodat};
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat,
};

/// How many directories a name may lead through. Real ones have some twenty;
/// symlinks take the others into depths where a single lookup takes seconds.
const DEEPEST: usize = 128;

/// A directory that is filled with the files of a root.
///
/// Paths are relative to it. The kernel resolves them with RESOLVE_BENEATH:
/// a symlink that leads out of the root, whoever put it there, gives EXDEV.
/// Missing parents are made, modes do not depend on the umask, and what is
/// there already under a file's name is replaced, never written through.
pub(crate) struct Tree {
    root: OwnedFd,
    pub(crate) directories: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

type Result<T> = std::result::Result<T, io::Error>;

impl Tree {
    pub(crate) fn open(path: &Path) -> Result<Tree> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
        let root = openat2(AT_FDCWD, path, how)?;
        Ok(Tree { root, directories: 0, files: 0, bytes: 0 })
    }

    /// Whether the container sees something there.
    pub(crate) fn has(&self, path: &Path) -> bool {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        openat2(&self.root, path, how).is_ok()
    }

    /// Makes a directory, or sets the mode of the one that is there.
    pub(crate) fn dir(&mut self, path: &Path, mode: u32) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        self.directories += 1;
        match mkdirat(&parent, name, Mode::S_IRWXU) {
            Err(Errno::EEXIST) => {
                let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
                let there = File::from(openat(&parent, name, flags)?);
                if !there.metadata()?.is_dir() {
                    unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?;
                    mkdirat(&parent, name, Mode::S_IRWXU)?;
                }
            }
            made => made?,
        }
        set_mode(&parent, name, mode)
    }

    /// Writes a regular file.
    pub(crate) fn file(
        &mut self,
        path: &Path,
        mode: u32,
        content: &mut (impl Read + ?Sized),
    ) -> Result<File> {
        let (parent, name) = self.vacant(path)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
        let mut file = File::from(openat(&parent, name, flags)?);
        self.bytes += io::copy(content, &mut file)?;
        self.files += 1;
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(file)
    }

    /// Makes a symlink. It may point anywhere: the container resolves it, and
    /// this tree does not follow one that leads out.
    pub(crate) fn symlink(&mut self, path: &Path, to: &OsStr) -> Result<()> {
        let (parent, name) = self.vacant(path)?;
        symlinkat(to, &parent, name)?;
        self.files += 1;
        Ok(())
    }

    /// Gives a file of this tree a second name.
    pub(crate) fn hard_link(&mut self, path: &Path, to: &Path) -> Result<()> {
        let (original, its_name) = self.parent(to)?;
        let (parent, name) = self.vacant(path)?;
        // Without AT_SYMLINK_FOLLOW: a link to a symlink is a link to it, not
        // to what it points to.
        linkat(&original, its_name, &parent, name, AtFlags::empty())?;
        self.files += 1;
        Ok(())
    }

    /// Removes the file with that name, if there is one.
    pub(crate) fn remove(&mut self, path: &Path) -> Result<()> {
        self.vacant(path).map(|_| ())
    }

    pub(crate) fn fifo(&mut self, path: &Path, mode: u32) -> Result<()> {
        let (parent, name) = self.vacant(path)?;
        mknodat(&parent, name, SFlag::S_IFIFO, Mode::S_IRUSR, 0)?;
        self.files += 1;
        set_mode(&parent, name, mode)
    }

    /// Sets the owner of a file, of a symlink itself where it is one.
    pub(crate) fn chown(
        &mut self,
        path: &Path,
        uid: u32,
        gid: u32,
    ) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        Ok(fchownat(&parent, name, Some(uid), Some(gid), flags)?)
    }

    /// Opens the directory that holds `path`, and makes it when it is
    /// missing.
    fn parent<'p>(&mut self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let is_plain =
            |c| matches!(c, Component::Normal(_) | Component::CurDir);
        let (true, Some(name)) =
            (path.components().all(is_plain), path.file_name())
        else {
            return Err(Errno::EXDEV.into());
        };
        if path.components().count() > DEEPEST {
            return Err(Errno::ENAMETOOLONG.into());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let directory = match self.open_beneath(parent, flags) {
            Err(Errno::ENOENT) => {
                let (above, missing) = self.parent(parent)?;
                mkdirat(&above, missing, Mode::S_IRWXU)?;
                self.directories += 1;
                set_mode(&above, missing, 0o755)?;
                self.open_beneath(parent, flags)?
            }
            opened => opened?,
        };
        Ok((directory, name))
    }

    /// The same, with nothing left under that name.
    fn vacant<'p>(&mut self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let (parent, name) = self.parent(path)?;
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok((parent, name)),
            Err(e) => Err(e.into()),
        }
    }

    fn open_beneath(
        &self,
        path: &Path,
        flags: OFlag,
    ) -> std::result::Result<OwnedFd, Errno> {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH);
        openat2(&self.root, path, how)
    }
}

fn openat(parent: &OwnedFd, name: &OsStr, flags: OFlag) -> Result<OwnedFd> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::openat(parent, name, flags, Mode::S_IRWXU)?)
}

/// Sets the mode of what was made a moment ago and so is no symlink.
fn set_mode(parent: &OwnedFd, name: &OsStr, mode: u32) -> Result<()> {
    let mode = Mode::from_bits_truncate(mode);
    Ok(fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink)?)
}
