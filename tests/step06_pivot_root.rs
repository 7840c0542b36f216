//! The suite of step06.

use std::process::ExitCode;

use suite::{Step, behaviour, main as suite_main};

fn main() -> ExitCode {
    suite_main(
        Step {
            number: 6,
            name: "step06-pivot-root",
            program: env!("CARGO_BIN_EXE_step06-pivot-root"),
        },
        &[behaviour::launcher::TESTS],
    )
}
