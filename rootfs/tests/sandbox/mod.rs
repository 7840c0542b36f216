//! What several files of tests use.

mod listing;

use std::fs;
use std::io::{self, Write as _};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

pub use listing::listing;

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
