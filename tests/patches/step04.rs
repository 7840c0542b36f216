//! What step04 does with a line less.

use suite::harness::Test;

/// The patches of this folder that begin with 04.
pub const PATCHES: &[Test] = &[];
