//! Furnishing a root with this machine's programs.

use std::collections::HashMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::os_str;
use crate::programs::{Programs, relative};
use crate::tree::Tree;

/// What the chapters and a curious reader type. One that this machine lacks
/// is left out; only the first has to be there.
const PROGRAMS: &[&str] = &[
    "sh",
    "bash",
    "[",
    "awk",
    "basename",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "chroot",
    "clear",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "dmesg",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "findmnt",
    "free",
    "grep",
    "head",
    "hostname",
    "id",
    "kill",
    "ln",
    "ls",
    "lsns",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "mount",
    "mountpoint",
    "mv",
    "nice",
    "nproc",
    "nsenter",
    "od",
    "pgrep",
    "pivot_root",
    "pkill",
    "printenv",
    "printf",
    "prlimit",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setpriv",
    "setsid",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tee",
    "test",
    "timeout",
    "top",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "uniq",
    "unshare",
    "uptime",
    "wc",
    "whoami",
    "xargs",
    "yes",
];

/// The system's own directories come before PATH: what a user put in front
/// of them, a wrapper script or a whole toolbox, is not what is wanted here.
const DIRECTORIES: &[&str] =
    &["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/current-system/sw/bin"];

/// Line editing in a shell needs to know the terminal; a few kB each.
const TERMINALS: &[&str] = &[
    "dumb",
    "linux",
    "screen",
    "screen-256color",
    "tmux",
    "tmux-256color",
    "vt100",
    "xterm",
    "xterm-256color",
];

const TERMINFO: &[&str] = &[
    "/etc/terminfo",
    "/lib/terminfo",
    "/usr/lib/terminfo",
    "/usr/share/terminfo",
    "/run/current-system/sw/share/terminfo",
];

/// Finds an executable of this machine.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    DIRECTORIES
        .iter()
        .map(PathBuf::from)
        .chain(env::split_paths(&path).filter(|d| d.is_absolute()))
        .map(|directory| directory.join(program))
        .find(|path| path.is_file() && access(path, AccessFlags::X_OK).is_ok())
}

/// What every root has apart from programs.
pub(crate) fn furnish(tree: &mut Tree) -> io::Result<()> {
    for (path, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("proc", 0o755),
        ("root", 0o700),
        ("sys", 0o755),
        ("tmp", 0o1777),
        ("usr", 0o755),
    ] {
        tree.dir(Path::new(path), mode)?;
    }
    // All programs are in /bin, and everywhere else that PATH looks.
    for (path, to) in
        [("sbin", "bin"), ("usr/bin", "../bin"), ("usr/sbin", "../bin")]
    {
        tree.symlink(Path::new(path), OsStr::new(to))?;
    }
    for (path, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\n\
             nobody:x:65534:65534:nobody:/:/bin/false\n",
        ),
        ("etc/group", "root:x:0:\nnobody:x:65534:\n"),
        // Without it glibc may ask for services that are not there.
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\n"),
    ] {
        tree.file(Path::new(path), 0o644, &mut text.as_bytes())?;
    }
    Ok(())
}

/// The programs that `busybox` is. Fails unless a shell is among them.
pub(crate) fn applets(busybox: &Path) -> Result<Vec<OsString>> {
    let output = Command::new(busybox)
        .arg("--list")
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {busybox:?} --list"))?;
    let names: Vec<OsString> = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|name| !name.is_empty() && !name.contains(&b'/'))
        .map(|name| os_str(name).into())
        .collect();
    if !output.status.success() || !names.iter().any(|name| name == "sh") {
        bail!("{busybox:?} has no shell");
    }
    Ok(names)
}

pub(crate) fn copy_busybox(tree: &mut Tree, busybox: &Path) -> Result<()> {
    let applets = applets(busybox)?;
    let bin = Path::new("bin");
    Programs::new(tree)
        .add(busybox, &bin.join("busybox"))
        .with_context(|| format!("cannot copy {busybox:?}"))?;
    for name in applets.iter().filter(|name| *name != "busybox") {
        tree.symlink(&bin.join(name), OsStr::new("busybox"))?;
    }
    Ok(())
}

pub(crate) fn copy_programs(tree: &mut Tree) -> Result<()> {
    let mut programs = Programs::new(tree);
    let mut names: HashMap<(u64, u64), &str> = HashMap::new();
    for &name in PROGRAMS {
        let Some(path) = find(name) else { continue };
        let at = Path::new("bin").join(name);
        let inode = path.metadata().map(|of| (of.dev(), of.ino()))?;
        // One file with many names, as coreutils is on some systems.
        if let Some(first) = names.get(&inode) {
            programs.tree().symlink(&at, OsStr::new(first))?;
            continue;
        }
        // A script, or one whose libraries are incomplete: left out.
        let Ok(needed) = programs.needed(&path) else {
            continue;
        };
        programs
            .copy(&path, &at, needed)
            .with_context(|| format!("cannot copy {path:?}"))?;
        names.insert(inode, name);
    }
    if !programs.tree().has(Path::new("bin/sh")) {
        return Err(Errno::ENOENT).context(
            "this machine has no sh to copy: install busybox, or name a \
             root with --rootfs",
        );
    }
    for name in TERMINALS {
        copy_terminal(programs.tree(), name)?;
    }
    Ok(())
}

fn copy_terminal(tree: &mut Tree, name: &str) -> io::Result<()> {
    let entry = Path::new(&name[..1]).join(name);
    // In the root it goes where the library looks first on this machine.
    for directory in TERMINFO {
        let path = Path::new(directory).join(&entry);
        if let Ok(mut file) = File::open(&path) {
            tree.file(relative(&path), 0o644, &mut file)?;
            return Ok(());
        }
    }
    Ok(())
}
