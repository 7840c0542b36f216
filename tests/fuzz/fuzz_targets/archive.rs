//! What is read as an archive lands in the root, or nothing does.

#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use tar::Header;
use tempfile::TempDir;

/// Time is for many archives, not for a large one.
const LIMIT: u64 = 1 << 20;

/// How many bytes of a header are for a name.
const NAME: usize = 100;

fuzz_target!(|archive: &[u8]| {
    let field = TempDir::new().expect("a folder");
    let field = field.path();
    let outside = field.join("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("victim"), "mine").expect("a file");
    // Its name is in archives, so they can aim at it.
    let aim = fs::canonicalize(field).expect("it is there");
    let archive = aimed(archive, aim.as_os_str().as_encoded_bytes());
    let before = listing(field);

    let target = field.join("fs");
    match rootfs::unpack_at_most(LIMIT, archive.as_slice(), &target) {
        Ok(summary) => {
            let mut files = 0;
            let mut bytes = 0;
            for (_, (mode, size)) in listing(&target) {
                files += u64::from(mode & 0o170000 != 0o040000);
                bytes += size;
                assert_eq!(mode & 0o6000, 0, "setuid");
                let kind = mode & 0o170000;
                assert!(![0o020000, 0o060000].contains(&kind), "a device");
            }
            // A name that comes twice counts twice; the mark does not.
            assert!(files <= summary.files + 1, "{files} {summary:?}");
            assert!(bytes <= LIMIT);
            fs::remove_dir_all(&target).expect("it can be removed");
        }
        Err(error) => {
            let line = format!("{error:#}");
            assert!(!line.contains(char::is_control), "{line:?}");
            assert!(line.len() < 1000, "{line:?}");
        }
    }
    assert_eq!(before, listing(field));
});

/// The archive with the field's name in the place of `/FIELD`, and with
/// headers whose checksums are right: a fuzzer does not guess those.
fn aimed(archive: &[u8], field: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    if archive.starts_with(&[0x1f, 0x8b]) {
        return archive;
    }
    let mark = b"/FIELD";
    let longer = field.len() - mark.len();
    for at in 0..archive.len().saturating_sub(field.len()) {
        if archive[at..].starts_with(mark) {
            // What comes behind it in the same header field moves on.
            let end = archive.len().min(at + NAME.max(field.len()));
            archive
                .copy_within(at + mark.len()..end - longer, at + field.len());
            archive[at..at + field.len()].copy_from_slice(field);
        }
    }
    let mut at = 0_usize;
    while let Some(block) = archive.get_mut(at..at.saturating_add(512)) {
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let mut header: Header = Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        let Ok(size) = header.entry_size() else { break };
        let Ok(size) = usize::try_from(size) else { break };
        let end = size.checked_next_multiple_of(512);
        at = at.saturating_add(512).saturating_add(end.unwrap_or(usize::MAX));
    }
    archive
}

/// All files below a directory, without following a link: mode and size.
fn listing(directory: &Path) -> BTreeMap<PathBuf, (u32, u64)> {
    let mut found = BTreeMap::new();
    let mut queue = vec![directory.to_owned()];
    while let Some(path) = queue.pop() {
        let of = path.symlink_metadata().expect("it is there");
        if of.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder");
            queue.extend(entries.map(|e| e.expect("an entry").path()));
        }
        let size = if of.is_file() { of.len() } else { 0 };
        found.insert(path, (of.mode(), size));
    }
    found
}
