//! The suite of step05.

use std::process::ExitCode;

use suite::{Step, behaviour, main as suite_main};

fn main() -> ExitCode {
    suite_main(
        Step {
            number: 5,
            name: "step05-proc",
            program: env!("CARGO_BIN_EXE_step05-proc"),
        },
        &[behaviour::launcher::TESTS],
    )
}
