//! What step04 does with a line less.

use anyhow::Result;
use suite::Subject;
use suite::harness::Test;
use suite::transcript::Transcript;

/// The patches of this folder that begin with 04.
pub const PATCHES: &[Test] = &[
    Test::of_patch("04-no-chdir", no_chdir),
    Test::of_patch("04-no-env-clear", no_env_clear),
];

fn no_chdir(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step04-chroot run cat secret")?
        .matches("04-break-no-chdir");
    Ok(())
}

fn no_env_clear(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "PASSWORD=hunter2 step04-chroot run sh -c 'echo $PASSWORD $HOME'",
        )?
        .matches("04-break-no-env-clear");
    Ok(())
}
