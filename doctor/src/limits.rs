//! How much of something this process may have, see getrlimit(2).

use std::env;
use std::ffi::OsStr;
use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use crate::cause::{Cause, quoted};
use crate::cgroup;

/// How many files we may have open.
pub fn open_files() -> Option<Cause> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(Cause::OpenFiles { limit: limit.to_string() })
}

/// Which limit keeps us from having another process: that of a cgroup, or of
/// our user.
pub fn processes() -> Option<Cause> {
    if let Some((group, limit)) = cgroup::full_of_processes() {
        let group = quoted(group);
        return Some(Cause::PidsLimit { limit, group });
    }
    let (limit, _) = getrlimit(Resource::RLIMIT_NPROC).ok()?;
    let full = our_threads()? >= limit;
    full.then(|| Cause::ProcessLimit { limit: limit.to_string() })
}

/// The kernel hands on a quarter of the stack's limit, 128 KiB at least and
/// 6 MiB at most. Our own arguments did fit, so what is left is less than we
/// add to them.
pub fn arguments() -> Option<Cause> {
    const OURS: u64 = 4096;
    let (stack, _) = getrlimit(Resource::RLIMIT_STACK).ok()?;
    let limit = (stack / 4).clamp(128 << 10, 6 << 20);
    let size = |text: &OsStr| (text.len() + 1 + size_of::<usize>()) as u64;
    let arguments: u64 = env::args_os().map(|argument| size(&argument)).sum();
    let environment: u64 = env::vars_os()
        .map(|(name, value)| size(&name) + value.len() as u64 + 1)
        .sum();
    let size = arguments + environment;
    (size + OURS > limit).then(|| Cause::ArgumentsTooLong {
        size: size.to_string(),
        limit: limit.to_string(),
    })
}

/// All that our user has, as far as `/proc` shows.
fn our_threads() -> Option<u64> {
    let count = |status: &str| {
        let field = |name| {
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().next()?.to_owned())
        };
        Some((field("Uid:")?, field("Threads:")?.parse::<u64>().ok()?))
    };
    let (us, _) = count(&fs::read_to_string("/proc/self/status").ok()?)?;
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let counts = processes.filter_map(|entry| {
        let pid = entry.file_name().into_string().ok()?;
        pid.parse::<u32>().ok()?;
        count(&fs::read_to_string(entry.path().join("status")).ok()?)
    });
    Some(counts.filter(|(uid, _)| *uid == us).map(|(_, n)| n).sum())
}
