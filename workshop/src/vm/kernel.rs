//! The kernel: User-Mode Linux, Linux as a program.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{AccessFlags, access};

use super::room::{self, Room};

/// How to get it.
pub const MISSING: &str = "`sudo apt install user-mode-linux` (Debian and \
    Ubuntu have it, for PCs); without root: `apt-get download \
    user-mode-linux && dpkg -x user-mode-linux_*.deb uml`, then `cargo \
    workshop vm --kernel uml/usr/bin/linux.uml`";

/// The kernel in PATH, as Debian calls it.
pub fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let all: Vec<_> = env::split_paths(&path).collect();
    // Ordinary users have no sbin in PATH, and nothing says where it is.
    let found = |name: &str| {
        let mut files = all.iter().map(|dir| dir.join(name));
        files.find(|file| {
            file.is_file() && access(file, AccessFlags::X_OK).is_ok()
        })
    };
    ["linux.uml", "linux"].into_iter().find_map(found)
}

/// Its command line.
///
/// The root is this machine's own tree. Kernel messages go to its stdout, and
/// no console to anybody. Not started are: the benchmarks that choose an
/// algorithm for RAID, and zswap, which together take longer than all the
/// rest of the boot; and terminals of the BSD kind.
fn arguments(room: &Path, memory: u64, lines: [i32; 2]) -> Vec<OsString> {
    let mut text = format!("mem={}K", memory >> 10);
    for (n, line) in lines.iter().enumerate() {
        let _ = write!(text, " ssl{n}=fd:{line}");
    }
    text += " con=null con0=null,fd:1 quiet panic=-1 noreboot \
        root=/dev/root rootfstype=hostfs rootflags=/ rw pty.legacy_count=0 \
        initcall_blacklist=raid6_select_algo,calibrate_xor_blocks,init_zswap";
    let mut arguments: Vec<OsString> =
        text.split_whitespace().map(Into::into).collect();
    arguments.push(mark(room.as_os_str()));
    arguments.push(option("init=", room::init(room).as_os_str()));
    arguments.extend(["--", "vm", "--part", "init"].map(Into::into));
    arguments.push(room.into());
    arguments
}

/// The argument that says whose kernel a process is: where its management
/// socket is.
pub fn mark(room: &OsStr) -> OsString {
    option("uml_dir=", room)
}

fn option(name: &str, value: &OsStr) -> OsString {
    let mut option = OsString::from(name);
    option.push(value);
    option
}

/// Starts it in a process group, with its ends of the serial lines.
pub fn start(
    kernel: &Path,
    room: &Room,
    memory: u64,
    owner: Option<(u32, u32)>,
    group: i32,
    lines: [impl AsFd; 2],
) -> Result<Child> {
    let log = File::create(room.log()).context("cannot write a log")?;
    let mut numbers = [0; 2];
    for (line, number) in lines.iter().zip(&mut numbers) {
        // The only two beyond 0, 1 and 2 that it inherits from us.
        fcntl(line, FcntlArg::F_SETFD(FdFlag::empty()))?;
        *number = line.as_fd().as_raw_fd();
    }
    let mut command = Command::new(kernel);
    command
        .args(arguments(room.path(), memory, numbers))
        .env("TMPDIR", room.memory())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(group);
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid);
    }
    command
        .spawn()
        .with_context(|| format!("cannot start {}", kernel.display()))
}
