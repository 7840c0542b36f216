//! The process that becomes the command.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use ::doctor::Stage;
use anyhow::{Context as _, Error, Result};
use nix::unistd::{Gid, Uid, fchown, setgid, setgroups, setsid, setuid};
use rustix::process::ioctl_tiocsctty;

use super::furnish::LEAF;
use super::job::numbers;
use crate::terminal::complain;

/// A session of its own, on its terminal if it has one; a leaf of the control
/// groups; the user; the directory; then the command.
pub fn main(arguments: &[OsString]) -> Result<ExitCode> {
    let [ids, directory, name, arguments @ ..] = arguments else {
        return Err(Error::msg("no command"));
    };
    setsid().context("cannot begin a session")?;
    if io::stdin().is_terminal() {
        ioctl_tiocsctty(io::stdin()).context("cannot take the terminal")?;
    }
    fs::write(Path::new(LEAF).join("cgroup.procs"), "0")
        .with_context(|| format!("cannot enter {LEAF}"))?;
    let ids = ids.to_str().and_then(numbers).context("no numbers")?;
    if let [uid, gid, ref groups @ ..] = ids[..] {
        // So that it can open /dev/stdin, and ttyname(3) its terminal.
        for stream in
            [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()]
        {
            let _ = fchown(
                stream,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
            );
        }
        let groups: Vec<_> =
            groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups).context("cannot set the groups")?;
        setgid(Gid::from_raw(gid)).context("cannot set the group")?;
        setuid(Uid::from_raw(uid)).context("cannot set the user")?;
    }
    env::set_current_dir(directory).with_context(|| {
        format!(
            "cannot enter {} as uid {}: begin in a folder that this user may \
             enter",
            Path::new(directory).display(),
            Uid::current()
        )
    })?;
    let error = Command::new(name).args(arguments).exec();
    let status = match error.kind() {
        ErrorKind::NotFound => 127,
        _ => 126,
    };
    complain(&Error::new(error).context(Stage::Exec(name.clone())));
    Ok(ExitCode::from(status))
}
