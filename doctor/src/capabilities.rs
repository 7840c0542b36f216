//! What this process may do in its user namespace, see capabilities(7).

use std::fmt;

use crate::status;

/// A capability that the steps need somewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Capability {
    /// For chroot(2).
    SysChroot = 18,
    /// For namespaces, mounts, pivot_root(2) and host names.
    SysAdmin = 21,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SysChroot => "CAP_SYS_CHROOT",
            Self::SysAdmin => "CAP_SYS_ADMIN",
        })
    }
}

/// Whether we have it: `None` when `/proc` does not tell.
pub fn effective(capability: Capability) -> Option<bool> {
    let set = status::hex(&status::field("CapEff")?)?;
    Some(set & (1 << capability as u32) != 0)
}

/// Whether we were seen not to have it.
pub fn lacks(capability: Capability) -> bool {
    effective(capability) == Some(false)
}
