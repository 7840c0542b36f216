//! The suite of step03.

use std::process::ExitCode;

use suite::{Step, behaviour, main as suite_main};

fn main() -> ExitCode {
    suite_main(
        Step {
            number: 3,
            name: "step03-pid",
            program: env!("CARGO_BIN_EXE_step03-pid"),
        },
        &[behaviour::launcher::TESTS],
    )
}
