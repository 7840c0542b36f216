//! The suite of step07.

use std::process::ExitCode;

use anyhow::Result;
use suite::harness::Test;
use suite::transcript::Transcript;
use suite::{Step, Subject, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 7,
            name: "step07-cgroups",
            program: env!("CARGO_BIN_EXE_step07-cgroups"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    the_eleventh_process,
    out_of_memory,
];

fn the_eleventh_process(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step07-cgroups run sh -c \
             'for n in 3 4 5 6 7 8 9 10 11; do sleep 9 & echo $n; done'",
        )?
        .matches("07-processes");
    Ok(())
}

fn out_of_memory(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step07-cgroups run tail /dev/zero; echo $?")?
        .matches("07-memory");
    Ok(())
}
