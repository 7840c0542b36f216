//! What can forbid a container on this machine, and what to do about it.
//!
//! [`hint`] starts from a failed [`Stage`] and its errno and looks for a
//! [`Cause`]. It never guesses: a cause is named only when it was seen, right
//! after the failure, in the process that failed. So whatever cannot be read
//! counts as not seen; in a chroot without `/proc` that is nearly everything.
//!
//! Each of the other modules looks at one thing.

pub mod apparmor;
pub mod around;
pub mod capabilities;
mod cause;
pub mod cgroup;
pub mod chroot;
pub mod command;
mod diagnosis;
pub mod directory;
pub mod kernel;
pub mod limits;
pub mod mounts;
pub mod proc_mount;
pub mod seccomp;
mod stage;
pub mod status;
pub mod sysctls;

pub use cause::Cause;
pub use diagnosis::cause;
pub use stage::Stage;

/// The one sentence that explains why `error` happened on this machine, with
/// the command that mends it; `None` when no cause was seen.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    cause(error).map(|cause| cause.to_string())
}
