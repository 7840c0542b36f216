//! Not there yet.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

#[derive(Args)]
pub struct Options {}

pub fn run(_: &Options) -> Result<ExitCode> {
    bail!("not there yet")
}
