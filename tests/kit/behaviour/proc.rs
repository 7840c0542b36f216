//! The mount table and /proc. From step05 on.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::caller::Caller;
use crate::harness::{Test, skip};
use crate::probe;
use crate::program::{Held, Start, Subject};
use crate::start::Given;
use crate::tests;

/// From step05 on.
pub const TESTS: &[Test] = tests![needs container:
    ps_shows_a_handful,
    proc_is_nosuid_nodev_noexec,
    proc_is_not_mounted_through_a_symlink,
    a_masked_proc_is_explained,
];

fn ps_shows_a_handful(subject: &Subject) -> Result<()> {
    let output = subject.sh("ps -o pid,args; exit 7").run()?;
    output.expect_status(7)?;
    let out = output.out();
    let pids: Vec<_> = out
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    ensure!(pids == ["1", "2", "3"], "ps shows {pids:?}: {output}");
    Ok(())
}

fn proc_is_nosuid_nodev_noexec(subject: &Subject) -> Result<()> {
    let held = subject.hold()?;
    let mounts = held.process.read("mountinfo")?;
    let line = mounts
        .lines()
        .rfind(|line| line.contains(" - proc "))
        .context("no proc is mounted")?;
    let options = line.split(' ').nth(5).context("mountinfo")?;
    for option in ["nosuid", "nodev", "noexec"] {
        ensure!(
            options.split(',').any(|has| has == option),
            "proc is mounted {options}"
        );
    }
    held.release()?.expect_status(0)?;
    Ok(())
}

/// A root may come from anybody: `proc` in it may lead to the host's files.
/// It has to be understood as it is inside: there `/victim` is not the host's.
fn proc_is_not_mounted_through_a_symlink(subject: &Subject) -> Result<()> {
    subject.apart(|subject| {
        let victim = subject.path("victim");
        let inside = subject.sandbox.fs().join("victim");
        let proc = subject.sandbox.fs().join("proc");
        fs::create_dir(&victim)?;
        fs::remove_dir(&proc)?;
        for target in [&victim, Path::new("../victim")] {
            symlink(target, &proc)?;
            let output = subject.start(["true"]).run()?;
            output.expect_failure(125, "proc").context("on the host")?;
            fs::remove_file(&proc)?;
        }
        fs::create_dir(&inside)?;
        subject.sandbox.give_away(&inside)?;
        for target in ["/victim", "../victim", "/../../victim"] {
            symlink(target, &proc)?;
            let output = subject.sh("test -e /victim/self/stat").run()?;
            output.expect_status(0).context(target)?;
            fs::remove_file(&proc)?;
        }
        Ok(())
    })
}

/// As in a container of Docker's, where parts of /proc are covered: then the
/// kernel lets no user namespace mount one.
fn a_masked_proc_is_explained(subject: &Subject) -> Result<()> {
    if Caller::own() != Caller::Root {
        return Err(skip("only root can cover parts of /proc"));
    }
    let own = env::current_exe()?;
    let args = [probe::PART, "outside-with-masked-proc"];
    let outside =
        Start::of(&own, args, subject.sandbox.dir()).with_input().spawn()?;
    outside.wait_for_output("@@ ready")?;
    let start = subject
        .probe("hold", [""; 0])
        .given(Given::Outside(outside.process().0));
    if subject.caller == Caller::Root {
        // Whoever needs no user namespace may mount it.
        Held::new(start)?.release()?.expect_status(0)?;
        return Ok(());
    }
    let output = start.run()?;
    output.expect_failure(125, "proc")?;
    ensure!(
        output.complaints().iter().any(|line| line.starts_with("hint: ")),
        "no hint: {output}"
    );
    Ok(())
}
