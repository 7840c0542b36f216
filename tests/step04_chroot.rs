//! The suite of step04.

use std::process::ExitCode;

use anyhow::Result;
use suite::harness::Test;
use suite::transcript::Transcript;
use suite::{Step, Subject, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 4,
            name: "step04-chroot",
            program: env!("CARGO_BIN_EXE_step04-chroot"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    ls_sees_the_new_root,
    ps_fails,
    errors,
];

fn ls_sees_the_new_root(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step04-chroot run ls /")?
        .matches("04-ls");
    Ok(())
}

fn ps_fails(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step04-chroot run ls /proc")?
        .type_line("step04-chroot run ps")?
        .matches("04-ps");
    Ok(())
}

fn errors(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step04-chroot --rootfs nowhere run sh; echo $?")?
        .type_line("step04-chroot run no-such-command; echo $?")?
        .matches("04-errors");
    Ok(())
}
