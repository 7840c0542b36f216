//! The host name. From step02 on.

use anyhow::{Context as _, Result, ensure};
use nix::unistd::gethostname;

use crate::harness::Test;
use crate::program::Subject;
use crate::tests;

/// From step02 on.
pub const TESTS: &[Test] = tests![needs container:
    the_host_name_is_container,
    the_host_name_can_be_chosen,
    a_host_name_that_is_too_long,
    a_child_without_a_launcher,
    the_user_is_root_inside,
];

fn the_host_name_is_container(subject: &Subject) -> Result<()> {
    let output = subject.start(["hostname"]).run()?;
    output.expect_status(0)?.expect_out("container\n")?;
    Ok(())
}

fn the_host_name_can_be_chosen(subject: &Subject) -> Result<()> {
    for args in [
        ["--hostname", "web", "run", "hostname"],
        ["run", "--hostname", "web", "hostname"],
    ] {
        let output = subject.command(args).run()?;
        output.expect_status(0)?.expect_out("web\n").context(args[0])?;
    }
    // Whatever it is, it is a name to the inner half, too.
    let output = subject.command(["--hostname=-x", "run", "hostname"]).run()?;
    output.expect_status(0)?.expect_out("-x\n")?;
    Ok(())
}

fn a_host_name_that_is_too_long(subject: &Subject) -> Result<()> {
    let name = "x".repeat(65);
    let output = subject.command(["--hostname", &name, "run", "true"]).run()?;
    output.expect_failure(125, "host name")?;
    Ok(())
}

/// The hidden half, typed by hand: the name that it sets would be the host's.
fn a_child_without_a_launcher(subject: &Subject) -> Result<()> {
    let before = gethostname()?;
    subject.command(["child", "--", "true"]).run()?.expect_status(2)?;
    let output =
        subject.command(["child", "--launcher", "1", "--", "true"]).run()?;
    output.expect_failure(125, "launcher")?;
    ensure!(gethostname()? == before, "the host has another name now");
    Ok(())
}

fn the_user_is_root_inside(subject: &Subject) -> Result<()> {
    let output = subject.sh("id -u; id -g").run()?;
    output.expect_status(0)?.expect_out("0\n0\n")?;
    Ok(())
}
