//! What is in a folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// All files below a directory: mode, and content or where a link points to.
pub fn listing(directory: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut queue = vec![directory.to_path_buf()];
    while let Some(path) = queue.pop() {
        let of = path.symlink_metadata().unwrap();
        let content = if of.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            queue.extend(entries.map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if of.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if of.is_file() {
            fs::read(&path).unwrap()
        } else {
            of.rdev().to_string().into()
        };
        let name = path.strip_prefix(directory).unwrap().to_path_buf();
        found.insert(name, (of.mode(), content));
    }
    found
}
