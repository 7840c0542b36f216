//! What step06 does with a line less.

use suite::harness::Test;

/// The patches of this folder that begin with 06.
pub const PATCHES: &[Test] = &[];
