//! Who calls a step: root, or an ordinary user.

use std::fmt;

use nix::unistd::{Uid, getgid, getuid};

use crate::process;

/// The uid and gid that the user's half drops to where the suite is started
/// as root: one that owns nothing and that no account has.
const SOMEBODY: u32 = 54321;

/// The two callers; every test runs as both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// uid 0, with the capabilities that the suite itself was given, among
    /// which is CAP_SYS_ADMIN.
    Root,
    /// Anybody else: in most containers uid 0 may do no more than others.
    User,
}

impl Caller {
    /// Both, in the order in which they run.
    pub const ALL: [Self; 2] = [Self::Root, Self::User];

    /// The one that this process is.
    pub fn own() -> Self {
        match Uid::effective().is_root() && has_sys_admin() {
            true => Self::Root,
            false => Self::User,
        }
    }

    /// Whether this process can start programs as that caller.
    pub fn is_possible(self) -> bool {
        self == Self::own() || Self::own() == Self::Root
    }

    /// The uid and gid that its programs run with.
    pub fn ids(self) -> (u32, u32) {
        match self {
            _ if self == Self::own() => (getuid().as_raw(), getgid().as_raw()),
            Self::Root => (0, 0),
            Self::User => (SOMEBODY, SOMEBODY),
        }
    }

    /// Whether its programs run with another uid than this process.
    pub fn is_another(self) -> bool {
        self != Self::own()
    }
}

/// Whether this process has CAP_SYS_ADMIN, see capabilities(7). Without a
/// /proc to ask, being root has to do.
fn has_sys_admin() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let set = process::own().status("CapEff").ok();
    let set = set.and_then(|set| u64::from_str_radix(&set, 16).ok());
    set.is_none_or(|set| set & (1 << CAP_SYS_ADMIN) != 0)
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::User => "user",
        })
    }
}
