//! Builds the book, serves it, and checks that it agrees with the programs.
//!
//! mdBook does the building. What its text shows of the programs and of the
//! suite is included, from the sources or from `book/generated`, which is made
//! here: so plain `mdbook build book` gives the same.

mod bench;
mod check;
mod diffs;
mod generated;
mod hints;
mod pictures;
mod schedule;
mod serve;

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use mdbook_driver::MDBook;

/// Build the book into target/book
#[derive(Parser)]
struct Cli {
    /// Serve it on this machine and build it anew when something changes
    #[arg(long, conflicts_with = "check")]
    serve: bool,
    /// The port to serve it on
    #[arg(long, value_name = "N", default_value_t = 3000)]
    port: u16,
    /// Check that it agrees with the programs and with itself
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run(&cli).unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "book: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let root = &root()?;
    if cli.check {
        let complaints = check::all(root)?;
        for complaint in &complaints {
            say(complaint);
        }
        if !complaints.is_empty() {
            say(&format!("{} to mend", complaints.len()));
            return Ok(ExitCode::FAILURE);
        }
        say("the book agrees with the programs and with itself");
        return Ok(ExitCode::SUCCESS);
    }
    generated::write(root)?;
    let pages = build(root)?;
    if cli.serve {
        serve::serve(root, &pages, cli.port)?;
    } else {
        let page = pages.join("index.html").canonicalize()?;
        let here = env::current_dir()?;
        let page = page.strip_prefix(here).unwrap_or(&page);
        say(&format!("the book is in {}", page.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The repository.
fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().context("the repository is not where it was built")
}

/// Builds the HTML and says in which folder.
fn build(root: &Path) -> Result<PathBuf> {
    let book = MDBook::load(root.join("book"))?;
    book.build()?;
    Ok(book.build_dir_for("html"))
}

fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
