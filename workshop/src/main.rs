//! `cargo workshop`: what a participant types beside the steps themselves.

mod book;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The tool for the room.
#[derive(Parser)]
#[command(bin_name = "cargo workshop", arg_required_else_help = true)]
#[command(disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the book into target/book
    Book(book::Options),
}

fn main() -> ExitCode {
    run(Cli::parse()).unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "workshop: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Book(options) => book::run(&options),
    }
}
