//! The book is built by a program of its own: what that needs takes a minute
//! to compile, which nobody should wait for who wants something else.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

/// What to do with the book besides building it.
#[derive(Args)]
pub struct Options {
    /// Serve it on this machine and build it anew when something changes
    #[arg(long, conflicts_with = "check")]
    serve: bool,
    /// The port to serve it on
    #[arg(long, value_name = "N", default_value_t = 3000, requires = "serve")]
    port: u16,
    /// Check that it agrees with the programs and with itself
    #[arg(long)]
    check: bool,
}

/// Compiles the book's program where that is due, and runs it.
pub fn run(options: &Options) -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo =
        Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.arg("run").arg("--package").arg("book");
    cargo.arg("--manifest-path").arg(root.join("Cargo.toml"));
    // Compiling is worth a word when there is much of it.
    if root.join("target/debug/book").exists() {
        cargo.arg("--quiet");
    }
    cargo.arg("--");
    if options.serve {
        cargo.arg("--serve").arg("--port").arg(options.port.to_string());
    }
    if options.check {
        cargo.arg("--check");
    }
    // Nobody in between: a signal for us is one for the book's program.
    Err(cargo.exec()).context("cannot start cargo")
}
