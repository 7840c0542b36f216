//! The suite of step04.

use std::process::ExitCode;

use suite::{Step, behaviour, main as suite_main};

fn main() -> ExitCode {
    suite_main(
        Step {
            number: 4,
            name: "step04-chroot",
            program: env!("CARGO_BIN_EXE_step04-chroot"),
        },
        &[behaviour::launcher::TESTS],
    )
}
