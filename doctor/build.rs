//! Stops the build on a system that is not Linux with one sentence, instead
//! of with a page of unknown system calls. And makes release builds start
//! sooner.

use std::env;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

fn main() {
    let system = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let mut lines = if system == "linux" {
        // A file that each package has that borrows this one: what is missing
        // counts as changed, and all would be compiled again every time.
        "cargo::rerun-if-changed=Cargo.toml".to_owned()
    } else {
        format!(
            "cargo::error=containers are made of Linux system calls and this \
             is {system}: build it in a Linux virtual machine, as the README \
             shows"
        )
    };
    if has_static_unwinder() {
        lines += "\ncargo::rustc-link-lib=gcc_eh";
    }
    let _ = writeln!(io::stdout(), "{lines}");
}

/// Whether what would be in libgcc_s.so can be in the program: to load that
/// takes an eighth of the time that a container takes, once for each half.
/// GCC comes with both; where it does not, all stays as it was.
fn has_static_unwinder() -> bool {
    let is = |name: &str, value: &str| env::var(name).as_deref() == Ok(value);
    if !is("PROFILE", "release") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return false;
    }
    // A compiler for another machine has another name.
    if env::var_os("HOST") != env::var_os("TARGET") {
        return false;
    }
    let asked = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
    // It answers with the bare name when there is none.
    asked.is_ok_and(|answer| {
        let file = String::from_utf8_lossy(&answer.stdout);
        Path::new(file.trim()).is_absolute()
    })
}
