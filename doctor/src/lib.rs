//! What can forbid a container on this machine, and what to do about it.

mod stage;

pub use stage::Stage;

/// The one sentence that explains why `error` happened on this machine, with
/// the command that mends it; `None` when no cause was seen.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    let _stage = error.downcast_ref::<Stage>()?;
    None
}
