//! What step05 does with a line less.

use anyhow::Result;
use suite::harness::Test;
use suite::transcript::Transcript;
use suite::{Caller, Subject};

/// The patches of this folder that begin with 05.
pub const PATCHES: &[Test] = &[
    Test::of_patch("05-shared-mounts", shared_mounts).only(Caller::Root),
    Test::of_patch("05-host-mounts", host_mounts).only(Caller::User),
    Test::of_patch("05-host-proc", host_proc),
    Test::of_patch("05-answer-home", answer_home),
];

fn shared_mounts(subject: &Subject) -> Result<()> {
    Transcript::on_shared_host(subject)?
        .type_line("grep fs/proc /proc/mounts")?
        .type_line("step05-proc run true")?
        .type_line("grep fs/proc /proc/mounts")?
        .type_line("step05-proc run true")?
        .type_line("grep -c fs/proc /proc/mounts")?
        .matches("05-break-shared-mounts");
    Ok(())
}

/// Root would cut the host's own mounts loose.
fn host_mounts(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step05-proc run true")?
        .matches("05-break-host-mounts");
    Ok(())
}

fn host_proc(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step05-proc run sh -c 'echo $$; exec grep ^Pid /proc/self/status'",
        )?
        .matches("05-break-host-proc");
    Ok(())
}

fn answer_home(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step05-proc run sh -c 'echo milk > /root/list; ls /root'")?
        .type_line("ls fs/root")?
        .matches("05-answer-home");
    Ok(())
}
