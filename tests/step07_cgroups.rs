//! The suite of step07.

use std::process::ExitCode;

use suite::{Step, behaviour, main as suite_main};

fn main() -> ExitCode {
    suite_main(
        Step {
            number: 7,
            name: "step07-cgroups",
            program: env!("CARGO_BIN_EXE_step07-cgroups"),
        },
        &[behaviour::launcher::TESTS],
    )
}
