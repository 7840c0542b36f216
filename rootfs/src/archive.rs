//! Unpacking an image into a root.

use std::cell::Cell;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Component, Path};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use flate2::bufread::MultiGzDecoder;
use nix::errno::Errno;
use nix::sys::stat::{SFlag, makedev};
use tar::{Entry, EntryType, Header};

use crate::tree::Tree;
use crate::{Summary, make, os_str};

/// How many bytes an archive may grow to, unless the caller says otherwise:
/// 4 GiB. Some images are that large; a bomb is larger.
pub const DEFAULT_LIMIT: u64 = 4 << 30;

/// How many bytes may describe a single file: a long name, PAX records. They
/// are read into memory.
const HEADER_LIMIT: u64 = 1 << 20;

/// Makes a root at `target` from a tar archive, plain or gzip: Alpine's
/// minirootfs, or what `docker export` writes.
///
/// Owners are kept where the kernel permits it, links always, setuid and
/// setgid bits never: the root lies in a folder of this machine, where
/// anyone could run such a program. An entry that would land outside the
/// target makes the whole archive fail with EXDEV; so does a truncated one
/// with `UnexpectedEof`. Then nothing is left.
pub fn unpack(archive: impl Read, target: &Path) -> Result<Summary> {
    unpack_at_most(DEFAULT_LIMIT, archive, target)
}

/// Does the same and fails with EFBIG when the archive, uncompressed, has
/// more than `limit` bytes.
pub fn unpack_at_most(
    limit: u64,
    archive: impl Read,
    target: &Path,
) -> Result<Summary> {
    make(target, |tree| {
        let mut archive = BufReader::new(archive);
        let start = archive.fill_buf().context("cannot read the archive")?;
        let plain: Box<dyn Read> = match start {
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(archive)),
            _ => Box::new(archive),
        };
        read_entries(tree, plain, limit)
    })
}

fn read_entries(
    tree: &mut Tree,
    plain: impl Read,
    limit: u64,
) -> Result<Summary> {
    let budget = Rc::new(Budget {
        total: Cell::new(limit),
        entry: Cell::new(HEADER_LIMIT),
        ended: Cell::new(false),
    });
    let metered = Metered { inner: plain, budget: Rc::clone(&budget) };
    let mut archive = tar::Archive::new(metered);
    let (mut entries, mut skipped) = (0, 0);
    for entry in archive.entries()? {
        let mut entry =
            entry.map_err(in_words).context("cannot read the archive")?;
        entries += 1;
        // Its content, rounded up to a block, and the next one's headers.
        let rest = entry.size().saturating_add(512 + HEADER_LIMIT);
        budget.entry.set(rest);
        let name = os_str(&entry.path_bytes()).to_owned();
        let is_made = write_entry(tree, &mut entry, Path::new(&name))
            .with_context(|| format!("cannot unpack {name:?}"))?;
        skipped += u64::from(!is_made);
    }
    // An archive ends in blocks of zeros; one that just stops was cut.
    if entries == 0 || budget.ended.get() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof))
            .context("the archive is empty or incomplete");
    }
    // What is left is padding, and gzip's checksum.
    budget.entry.set(u64::MAX);
    io::copy(&mut archive.into_inner(), &mut io::sink())
        .context("cannot read the archive")?;
    Ok(Summary {
        source: "the archive",
        files: tree.files,
        bytes: tree.bytes,
        skipped,
    })
}

/// Of a file that is no archive the tar crate shows a piece, line breaks and
/// all.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::Other => io::Error::new(
            io::ErrorKind::InvalidData,
            "not a tar archive, plain or gzip, or a damaged one",
        ),
        _ => error,
    }
}

/// Makes one file. False when it is a device node and we may not.
fn write_entry(
    tree: &mut Tree,
    entry: &mut Entry<'_, impl Read>,
    name: &Path,
) -> Result<bool> {
    let header = entry.header();
    let kind = header.entry_type();
    let mode = header.mode()?;
    let owner = (header.uid()?, header.gid()?);
    let changed = header.mtime()?;
    let to = entry.link_name_bytes().map(|to| os_str(&to).to_owned());
    let to = || to.as_deref().ok_or(Errno::EINVAL);
    match kind {
        // It describes the archive, not a file.
        EntryType::XGlobalHeader => return Ok(true),
        // The root itself, as `./`.
        EntryType::Directory
            if name.components().all(|c| c == Component::CurDir) =>
        {
            return Ok(true);
        }
        // Whoever unpacked it must be able to remove it.
        EntryType::Directory => tree.dir(name, mode & 0o1777 | 0o700)?,
        EntryType::Regular | EntryType::Continuous => {
            let file = tree.file(name, mode & 0o777, entry)?;
            let changed = Duration::from_secs(changed);
            if let Some(time) = SystemTime::UNIX_EPOCH.checked_add(changed) {
                let _ = file.set_modified(time);
            }
        }
        EntryType::Symlink => tree.symlink(name, to()?)?,
        EntryType::Link => tree.hard_link(name, Path::new(to()?))?,
        EntryType::Fifo => tree.node(name, SFlag::S_IFIFO, mode & 0o777, 0)?,
        EntryType::Char | EntryType::Block => {
            let number = device(header)?;
            let kind = match kind {
                EntryType::Char => SFlag::S_IFCHR,
                _ => SFlag::S_IFBLK,
            };
            match tree.node(name, kind, mode & 0o777, number) {
                Err(e) if is_forbidden(&e) => return Ok(false),
                made => made?,
            }
        }
        other => bail!("entries of the type {other:?} are not supported"),
    }
    // A second name has the owner of the first.
    let owner = (u32::try_from(owner.0), u32::try_from(owner.1));
    if let (true, (Ok(uid), Ok(gid))) = (kind != EntryType::Link, owner) {
        match tree.chown(name, uid, gid) {
            Err(e) if is_forbidden(&e) => {}
            done => done?,
        }
    }
    Ok(true)
}

/// EPERM without the capability; EINVAL for an owner that our user namespace
/// does not know.
fn is_forbidden(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EPERM | Errno::EINVAL)
    )
}

fn device(header: &Header) -> io::Result<u64> {
    let major = header.device_major()?.unwrap_or_default();
    let minor = header.device_minor()?.unwrap_or_default();
    Ok(makedev(major.into(), minor.into()))
}

/// What may still be read.
struct Budget {
    /// Of the whole archive.
    total: Cell<u64>,
    /// Up to the next file.
    entry: Cell<u64>,
    /// Whether there is nothing more.
    ended: Cell<bool>,
}

/// A reader that keeps to a budget, and fails with EFBIG beyond it.
struct Metered<R> {
    inner: R,
    budget: Rc<Budget>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        if length == 0 && !buffer.is_empty() {
            self.budget.ended.set(true);
        }
        for left in [&self.budget.total, &self.budget.entry] {
            let rest = left.get().checked_sub(length as u64);
            left.set(rest.ok_or(Errno::EFBIG)?);
        }
        Ok(length)
    }
}
