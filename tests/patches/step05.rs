//! What step05 does with a line less.

use anyhow::Result;
use suite::harness::Test;
use suite::transcript::Transcript;
use suite::{Caller, Subject};

/// The patches of this folder that begin with 05.
pub const PATCHES: &[Test] =
    &[Test::of_patch("05-shared-mounts", shared_mounts).only(Caller::Root)];

fn shared_mounts(subject: &Subject) -> Result<()> {
    Transcript::on_shared_host(subject)?
        .type_line("grep $PWD /proc/mounts")?
        .type_line("step05-proc run true")?
        .type_line("grep $PWD /proc/mounts")?
        .matches("05-break-shared-mounts");
    Ok(())
}
