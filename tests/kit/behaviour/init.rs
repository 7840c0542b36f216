//! What being PID 1 means. From step03 on.

use std::os::unix::process::ExitStatusExt as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal::{
    self, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
};

use crate::behaviour::kills;
use crate::harness::{Test, skip};
use crate::process::{self, settles};
use crate::program::{Findings, Held, Subject, is_probe};
use crate::tests;

/// From step03 on.
pub const TESTS: &[Test] = tests![needs container:
    orphans_are_reaped,
    a_status_is_not_lost_among_orphans,
    a_trap_runs,
    signals_end_a_plain_command,
    a_stopped_command_can_be_continued,
    killing_pid_1_ends_the_container,
    launchers_killed_at_random_moments,
    an_early_term_is_not_lost,
];

const FORWARDED: [Signal; 6] =
    [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2];

fn orphans_are_reaped(subject: &Subject) -> Result<()> {
    let start = subject.probe("leave-orphans", ["5"]).with_input();
    let mut running = start.spawn()?;
    running.wait_for_output("@@ ready")?;
    let findings = Findings::from(&running.output_so_far()[..]);
    ensure!(findings.last("orphans") == Some("5"), "{findings:?}");
    let zombies = || {
        let mut family = process::left_behind();
        family.push(running.process());
        process::all()
            .into_iter()
            .filter(|found| found.state() == Some('Z'))
            .filter(|found| found.parent().is_some_and(|p| family.contains(&p)))
            .count()
    };
    ensure!(settles(|| zombies() == 0), "{} zombies stay", zombies());
    running.end_input();
    running.wait()?.expect_status(0)?;
    Ok(())
}

/// The command ends while PID 1 is busy with an orphan that ended before it:
/// strace(1) makes each look for the dead take longer than that.
fn a_status_is_not_lost_among_orphans(subject: &Subject) -> Result<()> {
    let looks = ["waitid", "wait4"];
    for slow in looks {
        let delay = format!("inject={slow}:delay_exit=100000");
        let args = ["-f", "-qq", "-o", "/dev/null", "-e", &delay];
        let output = subject
            .sh("(sleep 0.05 &); sleep 0.12; exit 7")
            .through("strace", args)
            .run()?;
        if output.err().contains("suite: cannot start") {
            return Err(skip("there is no strace here"));
        }
        output.expect_status(7).context(slow)?;
    }
    Ok(())
}

fn a_trap_runs(subject: &Subject) -> Result<()> {
    for signal in FORWARDED {
        let name = &signal.as_str()["SIG".len()..];
        let script = format!(
            "trap 'echo got it; exit 9' {name}; echo @@ ready; \
             while :; do sleep 0.05; done"
        );
        let running = subject.sh(&script).spawn()?;
        running.wait_for_output("@@ ready")?;
        running.signal(signal)?;
        let output = running.wait().context(name.to_owned())?;
        output.expect_status(9)?.expect_out("@@ ready\ngot it\n")?;
    }
    Ok(())
}

fn signals_end_a_plain_command(subject: &Subject) -> Result<()> {
    for signal in FORWARDED {
        let running = subject.probe("sleep", ["in-it", "20"]).spawn()?;
        process::find("sleeping probe", is_probe)?;
        running.signal(signal)?;
        let output = running.wait().context(signal)?;
        output.expect_status(128 + signal as i32)?;
    }
    Ok(())
}

fn a_stopped_command_can_be_continued(subject: &Subject) -> Result<()> {
    let held = Held::new(subject.probe("hold", [""; 0]))?;
    held.process.signal(Signal::SIGSTOP)?;
    ensure!(
        settles(|| held.process.state() == Some('T')),
        "the command does not stop"
    );
    thread::sleep(Duration::from_millis(50));
    ensure!(held.launcher.process().is_alive(), "the launcher ended");
    held.process.signal(Signal::SIGCONT)?;
    held.release()?.expect_status(0)?;
    Ok(())
}

fn killing_pid_1_ends_the_container(subject: &Subject) -> Result<()> {
    let held = subject.hold()?;
    let init = held.process.parent().context("no parent")?;
    init.signal(SIGKILL)?;
    ensure!(settles(|| !held.process.is_alive()), "the command survives");
    held.launcher.wait()?.expect_status(137)?;
    Ok(())
}

fn launchers_killed_at_random_moments(subject: &Subject) -> Result<()> {
    kills::at_any_moment(subject, SIGKILL, 50)
}

/// Before the command has started, and while PID 1 gets ready for it.
fn an_early_term_is_not_lost(subject: &Subject) -> Result<()> {
    for n in 0..30 {
        let running = subject.start(["sleep", "30"]).spawn()?;
        thread::sleep(Duration::from_micros(n * 250));
        running.signal(SIGTERM)?;
        let output = running.wait().with_context(|| format!("TERM {n}"))?;
        // Before the launcher catches it, it is the launcher that ends.
        ensure!(
            output.status.code() == Some(143)
                || output.status.signal() == Some(SIGTERM as i32),
            "TERM {n}: {output}"
        );
        ensure!(
            settles(|| process::left_behind().is_empty()),
            "TERM {n} left something running"
        );
    }
    Ok(())
}
