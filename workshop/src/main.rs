//! `cargo workshop`: what a participant types beside the steps themselves.

mod bench;
mod book;
mod catch_up;
mod check;
mod diff;
mod doctor;
mod hint;
mod item;
mod mine;
mod rootfs;
mod start;
mod step;
mod terminal;
mod vm;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::mine::Mine;
use crate::terminal::{STRONG, complain, say, styled};

/// The tool for the room.
#[derive(Parser)]
#[command(bin_name = "cargo workshop", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Try what this machine allows, and say which steps will run here
    Doctor(doctor::Options),
    /// Make or replace a root file system
    Rootfs(rootfs::Options),
    /// Begin a container of your own, in mine/
    Start(start::Options),
    /// Say what your container isolates and what it leaks
    Check(check::Options),
    /// Help with the next step, a little more each time
    Hint(hint::Options),
    /// Put mine/ to the source of a step
    CatchUp(catch_up::Options),
    /// Show what one step changes in another, function by function
    Diff(diff::Options),
    /// Boot a Linux kernel of your own, without root
    Vm(vm::Options),
    /// Build the book into target/book
    Book(book::Options),
    /// Measure the steps beside runc, crun, bubblewrap and others
    Bench(bench::Options),
}

fn main() -> ExitCode {
    // `check` starts this program once more, inside containers, too.
    suite::play_part();
    run(Cli::parse()).unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Some(Command::Doctor(options)) => doctor::run(&options),
        Some(Command::Rootfs(options)) => rootfs::run(&options),
        Some(Command::Start(options)) => start::run(&options),
        Some(Command::Check(options)) => check::run(&options),
        Some(Command::Hint(options)) => hint::run(&options),
        Some(Command::CatchUp(options)) => catch_up::run(&options),
        Some(Command::Diff(options)) => diff::run(&options),
        Some(Command::Vm(options)) => vm::run(&options),
        Some(Command::Book(options)) => book::run(&options),
        Some(Command::Bench(options)) => bench::run(&options),
        None => {
            Cli::command().print_help()?;
            say("");
            say(styled(STRONG, format_args!("Next: {}", next()?)));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What to do, for somebody who does not know.
fn next() -> Result<String> {
    let Ok(mine) = Mine::find(&root()?) else {
        let first = "`cargo workshop doctor`, then `cargo workshop start`";
        return Ok(first.to_owned());
    };
    let step = mine.task()?.number();
    Ok(format!("step {step}: `cargo workshop hint`, `cargo workshop check`"))
}

/// Names another folder to work in: the tests make one of their own.
const COURSE: &str = "WORKSHOP_COURSE";

/// The repository.
fn root() -> Result<PathBuf> {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = env::var_os(COURSE).map_or_else(here, PathBuf::from);
    root.canonicalize().context("the course is not where it was built")
}
