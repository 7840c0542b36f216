//! What step06 does with a line less.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::Result;
use suite::harness::{Test, skip};
use suite::transcript::Transcript;
use suite::{Caller, Subject};

/// The patches of this folder that begin with 06.
pub const PATCHES: &[Test] = &[
    Test::of_patch("06-no-bind", no_bind_as_root).only(Caller::Root),
    Test::of_patch("06-no-bind", no_bind_as_user).only(Caller::User),
    Test::of_patch("06-old-root", old_root),
    Test::of_patch("06-late-devices", late_devices),
    Test::of_patch("06-answer-put-old", answer_put_old),
];

fn no_bind_as_root(subject: &Subject) -> Result<()> {
    // Elsewhere it is EINVAL.
    if fs::metadata(subject.path("fs"))?.dev() != fs::metadata("/")?.dev() {
        return Err(skip("fs is not on the mount of /"));
    }
    Transcript::new(subject)
        .type_line("step06-pivot-root run true")?
        .matches("06-break-no-bind-root");
    Ok(())
}

/// In a user namespace the mounts of the host are locked: the kernel sees that
/// first, and has another number for it.
fn no_bind_as_user(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step06-pivot-root run true")?
        .matches("06-break-no-bind-user");
    Ok(())
}

fn old_root(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        // By its path: on the way to another, `usr/bin -> ../bin` may lead to
        // the old root, too.
        .type_line("step06-pivot-root run /bin/cat $PWD/secret")?
        .type_line("step06-pivot-root run /bin/cat /..$PWD/secret")?
        .matches("06-break-old-root");
    Ok(())
}

fn late_devices(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step06-pivot-root run sh -c 'echo gone > /dev/null; cat /dev/null'",
        )?
        .matches("06-break-late-devices");
    Ok(())
}

fn answer_put_old(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step06-pivot-root run cut -d' ' -f2 /proc/mounts")?
        .type_line("test -e fs/old; echo $?")?
        .matches("06-answer-put-old");
    Ok(())
}
