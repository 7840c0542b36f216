//! Unpacking an image into a root.

use std::cell::Cell;
use std::ffi::OsStr;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Component, Path};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use flate2::bufread::MultiGzDecoder;
use nix::errno::Errno;
use tar::{Entry, EntryType};

use crate::tree::Tree;
use crate::{Summary, make, os_str};

/// How many bytes an archive may grow to, unless the caller says otherwise:
/// 4 GiB. Some images are that large; a bomb is larger.
pub const DEFAULT_LIMIT: u64 = 4 << 30;

/// How many bytes may describe a single file: a long name, PAX records. They
/// are read into memory.
const HEADER_LIMIT: u64 = 1 << 20;

/// What a file takes up on a disk at least, and a directory.
const BLOCK: u64 = 4096;

/// How much of a name an error shows: an archive may have one of a megabyte.
const SHOWN: usize = 100;

/// Makes a root at `target` from a tar archive, plain or gzip: Alpine's
/// minirootfs, or what `docker export` writes.
///
/// Owners are kept where the kernel permits it, links always, setuid and
/// setgid bits never: the root lies in a folder of this machine, where
/// anyone could run such a program. Device nodes are left out, for root too,
/// for the same reason: one for the disk would be as good. An entry that would land outside the
/// target makes the whole archive fail with EXDEV; so does a truncated one
/// with `UnexpectedEof`. Then nothing is left.
pub fn unpack(archive: impl Read, target: &Path) -> Result<Summary> {
    unpack_at_most(DEFAULT_LIMIT, archive, target)
}

/// Does the same and fails with EFBIG when the archive, uncompressed, has
/// more than `limit` bytes, or its files need more, at 4 KiB each.
pub fn unpack_at_most(
    limit: u64,
    archive: impl Read,
    target: &Path,
) -> Result<Summary> {
    make(target, |tree| {
        let mut archive = BufReader::new(archive);
        let mut start = Vec::new();
        // A pipe may give it bit by bit.
        let ten = archive.by_ref().take(10).read_to_end(&mut start);
        ten.context("cannot read the archive")?;
        let is_gzip = start.starts_with(&[0x1f, 0x8b]);
        if let Some(way_out) = other_format(&start) {
            bail!("no tar archive, plain or gzip, but {way_out}");
        }
        let archive = Cursor::new(start).chain(archive);
        let plain: Box<dyn Read> = match is_gzip {
            true => Box::new(MultiGzDecoder::new(archive)),
            false => Box::new(archive),
        };
        read_entries(tree, plain, limit)
    })
}

/// What a root comes in else, by its first bytes, and what to do then.
fn other_format(start: &[u8]) -> Option<&'static str> {
    Some(match start {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            "xz: `xz -dc ARCHIVE | cargo workshop rootfs --from -`"
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            "zstd: `zstd -dc ARCHIVE | cargo workshop rootfs --from -`"
        }
        [b'B', b'Z', b'h', _, b'1', b'A', b'Y', b'&', b'S', b'Y', ..] => {
            "bzip2: `bzip2 -dc ARCHIVE | cargo workshop rootfs --from -`"
        }
        [b'P', b'K', 3, 4, ..] => {
            "zip: unzip it into a folder, and name that with --rootfs"
        }
        _ => return None,
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
            .with_context(|| format!("cannot unpack {}", shown(&name)))?;
        skipped += u64::from(!is_made);
        let made = tree.files + tree.directories;
        if made.saturating_mul(BLOCK) > limit {
            return Err(Errno::EFBIG).context("too many files");
        }
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
    let has = |name| tree.has(Path::new(name));
    if (has("manifest.json") || has("oci-layout")) && !has("bin") {
        bail!(
            "an image in layers, as `docker save` writes it: `docker export` \
             of a container writes its root"
        );
    }
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

/// A name for an error.
fn shown(name: &OsStr) -> String {
    let bytes = name.as_encoded_bytes();
    match bytes.get(..SHOWN) {
        Some(start) => format!("{:?}… ({} bytes)", os_str(start), bytes.len()),
        None => format!("{name:?}"),
    }
}

/// Makes one file. False when it is a device node.
fn write_entry(
    tree: &mut Tree,
    entry: &mut Entry<'_, impl Read>,
    name: &Path,
) -> Result<bool> {
    if is_sparse(entry).map_err(in_words)? {
        bail!("sparse files are not supported: tar without --sparse");
    }
    let header = entry.header();
    let kind = header.entry_type();
    let mode = header.mode().map_err(in_words)?;
    let uid = header.uid().map_err(in_words)?;
    let gid = header.gid().map_err(in_words)?;
    let changed = header.mtime().map_err(in_words)?;
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
        EntryType::Fifo => tree.fifo(name, mode & 0o777)?,
        EntryType::Char | EntryType::Block => {
            tree.remove(name)?;
            return Ok(false);
        }
        other => bail!("entries of the type {other:?} are not supported"),
    }
    // A second name has the owner of the first.
    let owner = (u32::try_from(uid), u32::try_from(gid));
    if let (true, (Ok(uid), Ok(gid))) = (kind != EntryType::Link, owner) {
        match tree.chown(name, uid, gid) {
            Err(e) if is_forbidden(&e) => {}
            done => done?,
        }
    }
    Ok(true)
}

/// Whether GNU tar has left the holes of a file out and written a map of
/// them, as records or in front of the content.
fn is_sparse(entry: &mut Entry<'_, impl Read>) -> io::Result<bool> {
    let mut records = entry.pax_extensions()?.into_iter().flatten().flatten();
    Ok(records.any(|record| record.key_bytes().starts_with(b"GNU.sparse.")))
}

/// EPERM without the capability; EINVAL for an owner that our user namespace
/// does not know.
fn is_forbidden(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EPERM | Errno::EINVAL)
    )
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
