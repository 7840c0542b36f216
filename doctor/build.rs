//! Stops the build on a system that is not Linux with one sentence, instead
//! of with a page of unknown system calls.

use std::env;
use std::io::{self, Write as _};

fn main() {
    let system = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let line = if system == "linux" {
        "cargo::rerun-if-changed=build.rs".to_owned()
    } else {
        format!(
            "cargo::error=containers are made of Linux system calls and this \
             is {system}: build it in a Linux virtual machine, as the README \
             shows"
        )
    };
    let _ = writeln!(io::stdout(), "{line}");
}
