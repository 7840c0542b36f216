//! The suite of step06.

use std::process::ExitCode;

use anyhow::Result;
use suite::harness::Test;
use suite::transcript::Transcript;
use suite::{Step, Subject, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 6,
            name: "step06-pivot-root",
            program: env!("CARGO_BIN_EXE_step06-pivot-root"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    own_devices,
];

fn own_devices(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step06-pivot-root run ls /")?
        .type_line("step06-pivot-root run ls /dev")?
        .type_line("step06-pivot-root run sh -c 'echo gone > /dev/null'")?
        .matches("06-devices");
    Ok(())
}
