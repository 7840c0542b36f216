//! The suite of step01.

use std::process::ExitCode;

use suite::{Step, behaviour, main as suite_main};

fn main() -> ExitCode {
    suite_main(
        Step {
            number: 1,
            name: "step01-exec",
            program: env!("CARGO_BIN_EXE_step01-exec"),
        },
        &[behaviour::launcher::TESTS],
    )
}
