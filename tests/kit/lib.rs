//! The kit of the black-box suite: it starts a program that makes containers
//! and looks at the world, inside and outside, through the kernel's eyes.
//!
//! The contract of such a program is small, so that a learner's own, in
//! whatever language, can be judged by the same rows: `PROGRAM run CMD ARGS…`,
//! started in a directory that holds `./fs`.

pub mod caller;
pub mod cgroup;
pub mod host;
pub mod judge;
pub mod process;
pub mod program;
pub mod property;
pub mod sandbox;
pub mod terminal;

mod probe;
mod start;

#[cfg(feature = "harness")]
pub mod behaviour;
#[cfg(feature = "harness")]
pub mod harness;
#[cfg(feature = "harness")]
mod inject;
#[cfg(feature = "harness")]
mod results;
#[cfg(feature = "harness")]
mod trace;
#[cfg(feature = "harness")]
pub mod transcript;

use std::env;

pub use caller::Caller;
#[cfg(feature = "harness")]
pub use harness::{Step, main};
pub use host::Host;
pub use program::{Output, Running, Subject};
pub use property::{PROPERTIES, Verdict};

/// The program that the kit is linked into, also when another has taken its
/// name meanwhile: a cargo build in the middle of a check.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Plays the part that this process was started for: the caller between fork
/// and exec, the probe inside the container, or the judge of a program that
/// is not one of ours. All are the executable that the kit is linked into, so that nothing else has to be built or found; a
/// program that uses the kit calls this first in its `main`.
///
/// Returns only where there is no part to play.
pub fn play_part() {
    let mut args = env::args_os().skip(1);
    match args.next().as_deref().and_then(|part| part.to_str()) {
        Some(start::PART) => start::main(args),
        #[cfg(feature = "harness")]
        Some(inject::PART) => inject::main(args),
        Some(probe::PART) => probe::main(args),
        Some(judge::PART) => judge::main(args),
        _ => {}
    }
}
