//! The suite of step03.

use std::process::ExitCode;

use anyhow::Result;
use suite::harness::Test;
use suite::transcript::Transcript;
use suite::{Step, Subject, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 3,
            name: "step03-pid",
            program: env!("CARGO_BIN_EXE_step03-pid"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    own_pids,
    ps_sees_the_host,
];

fn own_pids(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step03-pid run sh -c 'echo $$'")?
        .matches("03-pid");
    Ok(())
}

fn ps_sees_the_host(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step03-pid run ps -e -o pid,ppid,args")?
        .matches("03-ps");
    Ok(())
}
