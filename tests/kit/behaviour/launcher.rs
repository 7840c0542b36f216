//! The launcher: command line, statuses, banners, odd callers. All steps.

use anyhow::Result;

use crate::harness::Test;
use crate::program::Subject;
use crate::tests;

/// For every step.
pub const TESTS: &[Test] = tests![needs container: a_command_runs];

fn a_command_runs(subject: &Subject) -> Result<()> {
    let output = subject.start(["echo", "hi"]).run()?;
    output.expect_status(0)?.expect_out("hi\n")?;
    Ok(())
}
