//! The root directory and the environment. From step04 on.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Test, guarded};
use crate::process::SOON;
use crate::program::Subject;
use crate::sandbox::Sandbox;
use crate::tests;
use crate::transcript::Transcript;

/// From step04 on.
pub const TESTS: &[Test] = tests![needs container:
    the_environment_is_clean,
    the_working_directory_is_the_root,
    commands_are_looked_up_inside,
    another_root_can_be_named,
    a_root_that_does_not_exist,
    a_root_that_is_no_directory,
    the_default_root_is_built,
    the_root_from_outside,
];

/// From step06 on.
pub const PIVOTED: &[Test] = tests![needs container:
    the_root_of_all_is_refused,
    dev_is_not_mounted_through_a_symlink,
];

impl Subject<'_> {
    /// The same program and caller in a folder of their own, for a test that
    /// changes the root.
    pub fn apart(
        &self,
        test: impl FnOnce(&Subject) -> Result<()>,
    ) -> Result<()> {
        let sandbox = Sandbox::new(&self.sandbox.program, self.caller)?;
        test(&Subject { sandbox: &sandbox, ..*self })
    }
}

fn the_environment_is_clean(subject: &Subject) -> Result<()> {
    let output = subject
        .probe("environment", [""; 0])
        .variable("TERM", "vt100")
        .variable("HOME", "/home/of/the/caller")
        .variable("LD_LIBRARY_PATH", "/of/the/caller")
        .run()?;
    let findings = output.findings();
    let mut keys = Vec::new();
    for line in findings.all("variable") {
        let (key, value) = line.split_once('=').context("no =")?;
        let key = key.trim_matches('"');
        // A shell that sets these itself is bash or busybox.
        if !["PWD", "SHLVL", "_", "OLDPWD"].contains(&key) {
            keys.push(key.to_owned());
        }
        match key {
            "TERM" => ensure!(value == "\"vt100\"", "TERM is {value}"),
            "HOME" => ensure!(value == "\"/root\"", "HOME is {value}"),
            _ => {}
        }
    }
    keys.sort();
    ensure!(keys == ["HOME", "PATH", "TERM"], "the environment has {keys:?}");
    Ok(())
}

fn the_working_directory_is_the_root(subject: &Subject) -> Result<()> {
    subject.start(["pwd"]).run()?.expect_status(0)?.expect_out("/\n")?;
    Ok(())
}

fn commands_are_looked_up_inside(subject: &Subject) -> Result<()> {
    subject.apart(|subject| {
        let script = subject.sandbox.fs().join("bin/only-inside");
        fs::write(&script, "#!/bin/sh\necho inside\n")?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        subject.sandbox.give_away(&script)?;
        // The caller's PATH has nothing to say inside.
        let output = subject
            .start(["only-inside"])
            .variable("PATH", "/nonexistent")
            .run()?;
        output.expect_status(0)?.expect_out("inside\n")?;
        let outside = subject.sandbox.program.as_os_str();
        let output = subject.start([outside]).run()?;
        output.expect_failure(127, "cannot run")?;
        Ok(())
    })
}

fn another_root_can_be_named(subject: &Subject) -> Result<()> {
    subject.apart(|subject| {
        let other = subject.path("another root");
        fs::rename(subject.sandbox.fs(), &other)?;
        fs::write(other.join("etc/which"), "the other")?;
        for root in
            ["another root", "./another root/.", &*other.to_string_lossy()]
        {
            let output = subject
                .command(["--rootfs", root, "run", "cat", "/etc/which"])
                .run()?;
            output
                .expect_status(0)?
                .expect_out("the other")
                .context(format!("with --rootfs {root:?}"))?;
        }
        let here = "cd 'another root'; exec \"$@\"";
        let output = subject
            .command(["--rootfs", ".", "run", "cat", "/etc/which"])
            .through("/bin/sh", ["-c", here, "sh"])
            .run()?;
        output.expect_status(0)?.expect_out("the other")?;
        Ok(())
    })
}

fn a_root_that_does_not_exist(subject: &Subject) -> Result<()> {
    let output =
        subject.command(["--rootfs", "nowhere", "run", "true"]).run()?;
    output.expect_failure(125, "nowhere")?;
    ensure!(!subject.path("nowhere").exists(), "it was made");
    Ok(())
}

fn a_root_that_is_no_directory(subject: &Subject) -> Result<()> {
    let output =
        subject.command(["--rootfs", "secret", "run", "true"]).run()?;
    output.expect_failure(125, "secret")?;
    Ok(())
}

fn the_root_of_all_is_refused(subject: &Subject) -> Result<()> {
    let output = subject.command(["--rootfs", "/", "run", "true"]).run()?;
    output.expect_failure(125, "pivot_root")?;
    ensure!(output.err().contains("hint: "), "no hint: {output}");
    Ok(())
}

/// While the old root is still there, `..` leads from the new one to it.
fn dev_is_not_mounted_through_a_symlink(subject: &Subject) -> Result<()> {
    subject.apart(|subject| {
        let dev = subject.sandbox.fs().join("dev");
        for target in ["../bin", "/bin"] {
            if fs::remove_dir(&dev).is_err() {
                fs::remove_file(&dev)?;
            }
            symlink(target, &dev)?;
            let output = subject.start(["true"]).run()?;
            output.expect_failure(125, "/dev").context(target)?;
        }
        Ok(())
    })
}

fn the_default_root_is_built(subject: &Subject) -> Result<()> {
    let sandbox =
        Sandbox::without_fs(&subject.sandbox.program, subject.caller)?;
    let subject = Subject { sandbox: &sandbox, ..*subject };
    let output = subject.start(["echo", "hi"]).run()?;
    output.expect_status(0)?.expect_out("hi\n")?;
    let lines = output.complaints();
    ensure!(
        lines.len() == 1 && lines[0].contains("fs"),
        "not one line about it: {output}"
    );
    // The second run finds it, and leaves it as it is.
    guarded(subject.groups, &sandbox, SOON, || {
        let output = subject.start(["ls", "/"]).run()?;
        output.expect_status(0)?;
        ensure!(output.complaints().is_empty(), "{output}");
        for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
            ensure!(
                output.out().lines().any(|line| line == name),
                "no /{name}: {output}"
            );
        }
        Ok(())
    })
}

/// What the kernel says of the command's root to those who are not in it.
fn the_root_from_outside(subject: &Subject) -> Result<()> {
    // What changed with pivot_root.
    let name = match subject.step {
        ..6 => "05-root-from-outside",
        _ => "06-root-from-outside",
    };
    let held = subject.hold()?;
    Transcript::new(subject)
        .type_while_it_runs(&held, |pid| format!("readlink /proc/{pid}/root"))?
        .matches(name);
    held.release()?.expect_status(0)?;
    Ok(())
}
