//! What both files of tests use.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

/// Whether we are the machine's root, not that of a user namespace.
pub fn is_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let is_initial = map.split_whitespace().eq(["0", "0", "4294967295"]);
    Uid::effective().is_root() && is_initial
}

/// Runs `body` in a thread with its own working directory, umask, root and,
/// on demand, mount table.
pub fn apart<T: Send>(flags: CloneFlags, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(flags | CloneFlags::CLONE_FS).unwrap();
            body()
        });
        thread.join().unwrap()
    })
}

/// Says why a test does not run, for what the other run, as root, tests.
pub fn skip_even_in_ci(reason: &str) {
    let _ = writeln!(io::stderr(), "skipped: {reason}");
}

/// The errno at the end of an error's chain.
pub fn errno(error: &anyhow::Error) -> Errno {
    let cause = error.root_cause();
    cause.downcast_ref().copied().unwrap_or_else(|| {
        let error: &io::Error = cause.downcast_ref().expect("no errno");
        Errno::from_raw(error.raw_os_error().unwrap_or(0))
    })
}

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
