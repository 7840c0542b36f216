//! What step01 does with a line less.

use anyhow::Result;
use suite::Subject;
use suite::harness::Test;
use suite::transcript::Transcript;

/// The patches of this folder that begin with 01.
pub const PATCHES: &[Test] = &[
    Test::of_patch("01-status", status),
    Test::of_patch("01-signals-blocked", signals_blocked),
    Test::of_patch("01-no-dashes", no_dashes),
];

fn status(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step01-exec run sh -c 'exit 7'; echo $?")?
        .type_line("step01-exec run false && echo 'all tests passed'")?
        .matches("01-break-status");
    Ok(())
}

fn signals_blocked(subject: &Subject) -> Result<()> {
    let script = "kill -TERM $$; echo still here";
    Transcript::new(subject)
        .type_line(&format!("step01-exec run sh -c '{script}'; echo $?"))?
        .type_line("step01-exec run grep SigBlk /proc/self/status")?
        .matches("01-break-signals-blocked");
    Ok(())
}

fn no_dashes(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step01-exec run -- --help; echo $?")?
        .matches("01-break-no-dashes");
    Ok(())
}
