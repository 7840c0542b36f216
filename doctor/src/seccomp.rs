//! Filters on system calls, such as Docker's, see seccomp(2).

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chroot, pivot_root};

use crate::capabilities::{self, Capability};
use crate::status;

/// A filter answers before the kernel looks at what was asked for. So each
/// call is made once more in a way that can do no harm, since the kernel
/// itself always has another answer to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// With a flag that it does not know: EINVAL.
    Unshare(CloneFlags),
    /// On a path that cannot exist: ENOENT.
    Mount,
    /// To a path that cannot exist: ENOENT.
    Chroot,
    /// The same, for those who have CAP_SYS_ADMIN: it is asked for first.
    PivotRoot,
}

impl Call {
    /// Its name with the section of the manual.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unshare(_) => "unshare(2)",
            Self::Mount => "mount(2)",
            Self::Chroot => "chroot(2)",
            Self::PivotRoot => "pivot_root(2)",
        }
    }

    /// Whether a filter is there and was seen to refuse this call with this
    /// error.
    pub fn refused(self, errno: Errno) -> bool {
        const NONE: Option<&str> = None;
        let answer = match self {
            Self::Unshare(flags) => unshare(flags | CloneFlags::CLONE_VFORK),
            Self::Mount => mount(NONE, "", NONE, MsFlags::empty(), NONE),
            Self::Chroot => chroot(""),
            Self::PivotRoot if capabilities::lacks(Capability::SysAdmin) => {
                return false;
            }
            Self::PivotRoot => pivot_root("", ""),
        };
        answer == Err(errno) && status::field("Seccomp").as_deref() == Some("2")
    }
}
