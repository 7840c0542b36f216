//! What step02 does with a line less.

use suite::harness::Test;

/// The patches of this folder that begin with 02.
pub const PATCHES: &[Test] = &[];
