//! The root file system that the steps from step04 on run in: a folder with a
//! shell and a few dozen small programs, built in a moment from what this
//! machine has, without a download.
//!
//! [`find_or_build`] is what a step calls, before it enters any namespace.
//! [`unpack`] makes a root from an image instead: Alpine's minirootfs, or
//! what `docker export` writes.
//!
//! A root is always built in a folder beside its target and then renamed
//! into place, so it is there whole or not at all.

mod archive;
mod elf;
mod host;
mod programs;
mod tree;
mod unfinished;

use std::ffi::OsStr;
use std::fmt;
use std::fs::rename;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use doctor::Stage;
use nix::errno::Errno;

pub use archive::{DEFAULT_LIMIT, unpack, unpack_at_most};

use programs::Programs;
use tree::Tree;
use unfinished::Unfinished;

/// Stands in every root that we made: another one is not ours to replace.
const MARK: &str = ".container-root";

/// Where a root's programs are copied from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The busybox at this path: one program that is all of them.
    Busybox(PathBuf),
    /// The programs that are installed on this machine.
    Host,
}

impl Source {
    /// A busybox that has a shell, if there is one, since it makes the
    /// smallest root; else the machine's own programs.
    pub fn choose() -> Source {
        host::find("busybox")
            .filter(|path| host::applets(path).is_ok())
            .map_or(Source::Host, Source::Busybox)
    }
}

/// What a root was made of.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What the files were taken from, in words.
    pub source: &'static str,
    /// How many there are, links included, directories not.
    pub files: u64,
    /// How much the regular ones among them hold, in bytes.
    pub bytes: u64,
    /// Device nodes of an archive that were left out: whoever may open one
    /// has the device. A container gets its own from step06.
    pub skipped: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { source, files, skipped, .. } = self;
        let megabytes = self.bytes as f64 / 1e6;
        write!(f, "{source}: {files} files, {megabytes:.1} MB")?;
        if *skipped > 0 {
            write!(f, ", {skipped} device nodes left out")?;
        }
        Ok(())
    }
}

/// The directory to use as a container's root.
///
/// `named` is what the user asked for and must exist. Without it the root is
/// `fs` in the working directory; when there is none it is built, and one
/// line on stderr says so.
///
/// Fails with the errno of stat(2), with ENOTDIR, or as [`build`] does.
pub fn find_or_build(named: Option<&Path>) -> Result<PathBuf> {
    let root = named.unwrap_or(Path::new("fs"));
    if named.is_none() && is_missing(root) {
        let built = build(root);
        // Another launcher may have been quicker: its root is as good.
        if built.is_ok() || is_missing(root) {
            let line = format!("made {} from {}\n", root.display(), built?);
            // A closed stderr is no reason to stop.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
    root.metadata()
        .and_then(|found| match found.is_dir() {
            true => Ok(()),
            false => Err(Errno::ENOTDIR.into()),
        })
        .with_context(|| Stage::UseRoot(root.to_owned()))?;
    Ok(root.to_path_buf())
}

/// Whether nothing is there, not even a link that leads nowhere.
fn is_missing(path: &Path) -> bool {
    matches!(path.symlink_metadata(), Err(e) if e.kind() == io::ErrorKind::NotFound)
}

/// Builds a root at `target`, from what [`Source::choose`] finds.
///
/// Nothing may be there yet but an empty directory (ENOTEMPTY, ENOTDIR).
pub fn build(target: &Path) -> Result<Summary> {
    build_from(&Source::choose(), target)
}

/// Builds a root at `target` from `source`.
pub fn build_from(source: &Source, target: &Path) -> Result<Summary> {
    make(target, |tree| {
        host::furnish(tree)?;
        match source {
            Source::Busybox(path) => host::copy_busybox(tree, path)?,
            Source::Host => host::copy_programs(tree)?,
        }
        Ok(Summary {
            source: match source {
                Source::Busybox(_) => "busybox",
                Source::Host => "this machine's programs",
            },
            files: tree.files,
            bytes: tree.bytes,
            skipped: 0,
        })
    })
}

/// Puts what `build` makes in the place of the root at `target`, once it is
/// complete; until then, and when it fails, the old one stays.
///
/// Fails with EEXIST when `target` is not a root that this library made:
/// what a person put there is not ours to remove.
pub fn replace(
    target: &Path,
    build: impl FnOnce(&Path) -> Result<Summary>,
) -> Result<Summary> {
    let replace = || {
        if !is_ours(target) {
            bail!(Errno::EEXIST);
        }
        let aside = Unfinished::beside(target)?;
        let (old, new) = (aside.path().join("old"), aside.path().join("new"));
        let summary = build(&new)?;
        rename(target, &old)?;
        rename(&new, target).or_else(|error| {
            rename(&old, target)?;
            Err(error)
        })?;
        Ok(summary)
    };
    replace().with_context(|| format!("cannot replace {target:?}"))
}

/// Whether this library made the root at `target`.
pub fn is_ours(target: &Path) -> bool {
    target.join(MARK).symlink_metadata().is_ok_and(|mark| mark.is_file())
}

/// Copies `program`, an ELF file, to `at` in the root at `root`, with its
/// loader and the shared libraries that it needs. Libraries that are there
/// already stay as they are; a program is replaced.
///
/// Nothing is run to find out. Fails with ENOEXEC when `program` is not an
/// ELF file and with EXDEV when a symlink in the root points out of it.
pub fn add_program(root: &Path, program: &Path, at: &Path) -> Result<()> {
    let mut tree = Tree::open(root)
        .with_context(|| format!("cannot use {root:?} as the root"))?;
    let at = at.strip_prefix("/").unwrap_or(at);
    Programs::new(&mut tree)
        .add(program, at)
        .with_context(|| format!("cannot copy {program:?} into {root:?}"))
}

/// Lets `fill` furnish a new directory, which then becomes `target`.
fn make(
    target: &Path,
    fill: impl FnOnce(&mut Tree) -> Result<Summary>,
) -> Result<Summary> {
    let make = || {
        // The rename decides; this only saves the work.
        let there = target.read_dir().map(|mut files| files.next().is_some());
        if there.is_ok_and(|is_full| is_full) {
            bail!(Errno::ENOTEMPTY);
        }
        let unfinished = Unfinished::beside(target)?;
        let mut tree = Tree::open(unfinished.path())?;
        let summary = fill(&mut tree)?;
        if !is_ours(unfinished.path()) {
            tree.file(Path::new(MARK), 0o644, &mut io::empty())?;
        }
        unfinished.rename(target)?;
        Ok(summary)
    };
    make().with_context(|| format!("cannot make {target:?}"))
}

/// The bytes of a name in an archive or an ELF file, as the kernel takes it.
fn os_str(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
