//! Who calls a step: root, or an ordinary user.

use std::fmt;

use nix::unistd::{Uid, getgid, getuid};

/// The uid and gid that the user's half drops to where the suite is started
/// as root: one that owns nothing and that no account has.
const SOMEBODY: u32 = 54321;

/// The two callers; every test runs as both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// uid 0, with the capabilities that the suite itself was given.
    Root,
    /// Any other uid, without capabilities.
    User,
}

impl Caller {
    /// Both, in the order in which they run.
    pub const ALL: [Self; 2] = [Self::Root, Self::User];

    /// The one that this process is.
    pub fn own() -> Self {
        if Uid::effective().is_root() { Self::Root } else { Self::User }
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

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::User => "user",
        })
    }
}
