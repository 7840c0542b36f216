//! What step01 does with a line less.

use anyhow::Result;
use suite::Subject;
use suite::harness::Test;
use suite::transcript::Transcript;

/// The patches of this folder that begin with 01.
pub const PATCHES: &[Test] = &[Test::of_patch("01-status", status)];

fn status(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step01-exec run sh -c 'exit 7'; echo $?")?
        .matches("01-break-status");
    Ok(())
}
