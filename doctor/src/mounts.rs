//! The mount table as this process sees it, see proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// One line of a mountinfo file.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Unique while the mount exists, in all mount namespaces.
    pub id: u64,
    /// The mount that it is on.
    pub parent: u64,
    /// The directory of the file system that it shows.
    pub root: PathBuf,
    /// Where it is, below our root directory.
    pub point: PathBuf,
    /// Of the mount, as in `ro,nosuid`.
    pub options: String,
    /// Whether mounts made here appear elsewhere, and back.
    pub shared: bool,
    /// As in `proc`.
    pub kind: String,
    /// Of the file system, as in `rw,memory`.
    pub super_options: String,
}

impl Mount {
    /// Whether nothing can be changed through it.
    pub fn read_only(&self) -> bool {
        has(&self.options, "ro") || has(&self.super_options, "ro")
    }

    /// Whether the file system has this option, for cgroup v1 its controllers.
    pub fn has(&self, option: &str) -> bool {
        has(&self.super_options, option)
    }
}

fn has(options: &str, option: &str) -> bool {
    options.split(',').any(|one| one == option)
}

/// All of ours; empty when `/proc` does not tell.
pub fn all() -> Vec<Mount> {
    read("self")
}

/// Those that this process sees, its PID given as `/proc` names it.
pub fn read(pid: &str) -> Vec<Mount> {
    let table = fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    table.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// The mount that this path is on. Links in it are followed.
pub fn holding(path: &Path) -> Option<Mount> {
    let path = fs::canonicalize(path).ok()?;
    let above = all().into_iter().filter(|one| path.starts_with(&one.point));
    // Of two mounts on one directory the later covers the earlier.
    above.max_by_key(|one| one.point.components().count())
}

fn parse(line: &[u8]) -> Option<Mount> {
    let fields: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text =
        |at: usize| Some(String::from_utf8_lossy(fields.get(at)?).into_owned());
    let optional = fields.get(6..dash)?;
    Some(Mount {
        id: text(0)?.parse().ok()?,
        parent: text(1)?.parse().ok()?,
        root: unescape(fields.get(3)?),
        point: unescape(fields.get(4)?),
        options: text(5)?,
        shared: optional.iter().any(|field| field.starts_with(b"shared:")),
        kind: text(dash + 1)?,
        super_options: text(dash + 3)?,
    })
}

/// The kernel writes a space, tab, newline or backslash as `\040` and so on.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        let digits =
            tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let octal =
            digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(octal) if *byte == b'\\' => {
                path.push(octal);
                rest = &tail[3..];
            }
            _ => {
                path.push(*byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_and_optional_fields_are_read() {
        let line = br"36 35 98:0 /a\040b /mnt\134x\012 rw,ro - ext4 dev rw";
        let mount = parse(line).unwrap();
        assert_eq!(mount.root, Path::new("/a b"));
        assert_eq!(mount.point, Path::new("/mnt\\x\n"));
        assert!(mount.read_only() && !mount.shared);
        let line = b"36 35 98:0 / / rw shared:1 master:2 - ext4 dev rw,memory";
        let mount = parse(line).unwrap();
        assert!(mount.shared && mount.has("memory") && !mount.has("mem"));
        assert!(parse(b"").is_none());
        assert!(parse(b"36 35 98:0 /").is_none());
        assert!(parse(b"36 35 - ext4").is_none());
    }
}
