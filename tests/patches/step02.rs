//! What step02 does with a line less.

use anyhow::Result;
use suite::harness::Test;
use suite::transcript::Transcript;
use suite::{Caller, Subject};

/// The patches of this folder that begin with 02.
pub const PATCHES: &[Test] = &[
    Test::of_patch("02-no-uts", no_uts_as_root).only(Caller::Root),
    Test::of_patch("02-no-uts", no_uts_as_user).only(Caller::User),
    Test::of_patch("02-no-deny", no_deny).only(Caller::User),
    Test::of_patch("02-no-maps", no_maps).only(Caller::User),
    Test::of_patch("02-answer-ipc", answer_ipc),
];

fn no_uts_as_root(subject: &Subject) -> Result<()> {
    Transcript::on_shared_host(subject)?
        .type_line("hostname")?
        .type_line("step02-uts run hostname")?
        .type_line("hostname")?
        .matches("02-break-no-uts-root");
    Ok(())
}

fn no_uts_as_user(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step02-uts run hostname; echo $?")?
        .matches("02-break-no-uts-user");
    Ok(())
}

fn no_deny(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step02-uts run hostname; echo $?")?
        .matches("02-break-no-deny");
    Ok(())
}

fn no_maps(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("unshare --user id -u")?
        .type_line("step02-uts run hostname; echo $?")?
        .matches("02-break-no-maps");
    Ok(())
}

fn answer_ipc(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("readlink /proc/self/ns/ipc")?
        .type_line("step02-uts run readlink /proc/self/ns/ipc")?
        .matches("02-answer-ipc");
    Ok(())
}
