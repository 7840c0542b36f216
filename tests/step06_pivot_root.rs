//! The suite of step06.

use std::process::ExitCode;

use anyhow::Result;
use suite::behaviour::{host_name, init, job_control, launcher, proc, root};
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
        &[
            launcher::TESTS,
            launcher::AS_ROOT,
            launcher::ANYWHERE,
            job_control::TESTS,
            host_name::TESTS,
            init::TESTS,
            root::TESTS,
            proc::TESTS,
            root::PIVOTED,
            TRANSCRIPTS,
        ],
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    own_devices,
    the_root_from_outside,
];

fn own_devices(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step06-pivot-root run ls /")?
        .type_line("step06-pivot-root run ls /dev")?
        .type_line("step06-pivot-root run sh -c 'echo gone > /dev/null'")?
        .matches("06-devices");
    Ok(())
}

fn the_root_from_outside(subject: &Subject) -> Result<()> {
    let held = subject.hold()?;
    Transcript::new(subject)
        .type_while_it_runs(&held, |pid| format!("readlink /proc/{pid}/root"))?
        .matches("06-root-from-outside");
    held.release()?.expect_status(0)?;
    Ok(())
}
