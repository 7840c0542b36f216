//! What the kernel says about this process.

use std::fs;

use nix::unistd::geteuid;

/// A line of `/proc/self/status`, see proc_pid_status(5).
pub fn field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let mut lines = status.lines();
    let value =
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// How many threads we have. With more than one there is no new user
/// namespace to be had.
pub fn threads() -> Option<u64> {
    field("Threads")?.parse().ok()
}

/// How many PID namespaces we are in, the outermost that `/proc` shows and
/// ours included.
pub fn pid_depth() -> Option<usize> {
    Some(field("NSpid")?.split_whitespace().count())
}

/// The user that we were when this program started, in the user namespace of
/// that moment. After unshare(2) nothing but the auxiliary vector still tells,
/// see getauxval(3).
pub fn uid_at_start() -> Option<u32> {
    const AT_EUID: usize = 12;
    const WORD: usize = size_of::<usize>();
    let vector = fs::read("/proc/self/auxv").ok()?;
    let word =
        |bytes: &[u8]| Some(usize::from_ne_bytes(bytes.try_into().ok()?));
    let entry = vector
        .chunks_exact(2 * WORD)
        .find(|entry| word(&entry[..WORD]) == Some(AT_EUID))?;
    u32::try_from(word(&entry[WORD..])?).ok()
}

/// A line of `/proc/self/uid_map`, see user_namespaces(7).
#[derive(Clone, Copy, Debug)]
pub struct UidRange {
    inside: u32,
    outside: u32,
    length: u32,
}

impl UidRange {
    /// Who this user is outside of our user namespace.
    pub fn outside(&self, uid: u32) -> Option<u32> {
        let offset = uid.checked_sub(self.inside)?;
        (offset < self.length).then(|| self.outside.saturating_add(offset))
    }
}

/// The users who exist in our user namespace; an empty list as long as
/// nobody has written the map.
pub fn uid_map() -> Option<Vec<UidRange>> {
    let map = fs::read_to_string("/proc/self/uid_map").ok()?;
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(UidRange { inside: next()?, outside: next()?, length: next()? })
    };
    map.lines().map(range).collect()
}

/// Who we are to the files of the host, as far as that can be told.
pub fn uid_outside() -> Option<u32> {
    let uid = geteuid().as_raw();
    let map = uid_map()?;
    let outside = map.iter().find_map(|range| range.outside(uid));
    outside.or_else(uid_at_start)
}

/// A set of capabilities or signals as `/proc` writes it.
pub(crate) fn hex(set: &str) -> Option<u64> {
    u64::from_str_radix(set, 16).ok()
}
