//! The container or machine around us, if there is one.

use std::env;
use std::fs;
use std::path::Path;

use crate::mounts::{self, Mount};

/// Who made it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Around {
    /// It leaves `/.dockerenv`, and mounts a file on `/etc/hostname`. The
    /// first alone may be left over: images are made into machines as well.
    Docker,
    /// It leaves `/run/.containerenv` and `container=podman`.
    Podman,
}

/// The one whose mark we see.
pub fn seen() -> Option<Around> {
    let hostname = |one: &Mount| one.point == Path::new("/etc/hostname");
    if Path::new("/.dockerenv").exists() && mounts::all().iter().any(hostname) {
        Some(Around::Docker)
    } else if Path::new("/run/.containerenv").exists()
        || env::var_os("container").is_some_and(|value| value == "podman")
    {
        Some(Around::Podman)
    } else {
        None
    }
}

/// Whether this is another PID namespace than the machine's first one, whose
/// number is the same in every kernel; `None` when `/proc` does not tell.
pub fn in_a_pid_namespace() -> Option<bool> {
    const FIRST: &str = "pid:[4026531836]";
    let own = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(own != Path::new(FIRST))
}

/// Whether the kernel is User-Mode Linux, as in `cargo workshop vm`.
pub fn in_user_mode_linux() -> bool {
    fs::read_to_string("/proc/cpuinfo")
        .is_ok_and(|text| text.contains("User Mode Linux"))
}

/// What to do about something that a container forbids: start it with the
/// option that Docker or Podman has for this.
pub(crate) fn way_out(docker: &str, podman: &str) -> String {
    let command = match seen() {
        Some(Around::Docker) => format!("docker run {docker}"),
        Some(Around::Podman) => format!("podman run {podman}"),
        None => {
            return "run this outside of the container or sandbox that we are \
                    in"
            .to_owned();
        }
    };
    format!("start the container that we are in with `{command} …`")
}
