//! The suite of step01.

use std::process::ExitCode;

use anyhow::Result;
use suite::harness::Test;
use suite::transcript::Transcript;
use suite::{Step, Subject, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 1,
            name: "step01-exec",
            program: env!("CARGO_BIN_EXE_step01-exec"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    fork_and_exec,
    the_host_name_is_the_hosts,
    statuses,
];

fn fork_and_exec(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step01-exec run echo hello")?
        .type_line("step01-exec run sh -c 'echo $$'")?
        .matches("01-fork-and-exec");
    Ok(())
}

fn the_host_name_is_the_hosts(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step01-exec run hostname")?
        .matches("01-hostname");
    Ok(())
}

fn statuses(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step01-exec run sh -c 'exit 7'; echo $?")?
        .type_line("step01-exec run sh -c 'kill -KILL $$'; echo $?")?
        .type_line("step01-exec run no-such-command; echo $?")?
        .type_line("step01-exec run /etc/passwd; echo $?")?
        .matches("01-statuses");
    Ok(())
}
