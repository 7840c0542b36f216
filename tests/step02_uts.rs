//! The suite of step02.

use std::process::ExitCode;

use suite::{Step, behaviour, main as suite_main};

fn main() -> ExitCode {
    suite_main(
        Step {
            number: 2,
            name: "step02-uts",
            program: env!("CARGO_BIN_EXE_step02-uts"),
        },
        &[behaviour::launcher::TESTS],
    )
}
