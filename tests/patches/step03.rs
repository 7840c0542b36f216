//! What step03 does with a line less.

use suite::harness::Test;

/// The patches of this folder that begin with 03.
pub const PATCHES: &[Test] = &[];
