//! What step07 does with a line less.

use suite::harness::Test;

/// The patches of this folder that begin with 07.
pub const PATCHES: &[Test] = &[];
