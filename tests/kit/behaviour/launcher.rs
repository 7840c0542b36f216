//! The launcher: command line, statuses, banners, odd callers. Every step.

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::harness::{Test, skip};
use crate::program::{Output, Subject};
use crate::start::Given;
use crate::tests;

/// For every step.
pub const TESTS: &[Test] = tests![needs container:
    both_halves_introduce_themselves,
    statuses_are_those_of_a_shell,
    a_command_that_does_not_exist,
    a_command_that_cannot_be_executed,
    options_after_the_command_are_its_own,
    full_and_closed_streams,
    few_descriptors,
    an_argument_list_that_is_too_long,
    sigchld_ignored_by_the_caller,
    what_the_caller_ignores_stays_ignored,
];

/// For every step.
pub const AS_ROOT: &[Test] = tests![as root: root_without_cap_sys_admin];

/// For every step, also where there can be no container.
pub const ANYWHERE: &[Test] =
    tests![anywhere: a_wrong_command_line, help_is_for_people];

fn both_halves_introduce_themselves(subject: &Subject) -> Result<()> {
    let running = subject.start(["echo", "hi there"]).spawn()?;
    let launcher = running.process().0;
    let output = running.wait()?;
    output.expect_status(0)?.expect_out("hi there\n")?;
    let err = output.err();
    let mut pids = err.lines().map(|line| {
        line.strip_prefix(r#"running ["echo", "hi there"] as "#)
            .and_then(|pid| pid.parse::<i32>().ok())
            .with_context(|| format!("no banner: {output}"))
    });
    let mut next = || pids.next().context("a banner is missing")?;
    let (run, child) = (next()?, next()?);
    ensure!(run == launcher, "run says {run}, its PID is {launcher}");
    match subject.step {
        1 | 2 => ensure!(child != run && child != 1, "child says {child}"),
        _ => ensure!(child == 1, "child says {child}"),
    }
    ensure!(pids.next().is_none(), "more than two lines: {output}");
    Ok(())
}

fn statuses_are_those_of_a_shell(subject: &Subject) -> Result<()> {
    for (script, status) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 125", 125),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
        ("kill -PIPE $$", 141),
        // A real-time signal, by its number: not every shell has the names.
        ("kill -40 $$", 168),
    ] {
        let output = subject.sh(script).run()?;
        output.expect_status(status).context(script)?;
        ensure!(output.complaints().is_empty(), "{script}: {output}");
    }
    Ok(())
}

fn a_command_that_does_not_exist(subject: &Subject) -> Result<()> {
    for command in ["no-such-command", "/no/such/command", "./no-such", ""] {
        let output = subject.start([command, "arg"]).run()?;
        output.expect_failure(127, command).context("not found")?;
        ensure!(output.stdout.is_empty(), "on stdout: {output}");
    }
    Ok(())
}

fn a_command_that_cannot_be_executed(subject: &Subject) -> Result<()> {
    for command in ["/etc/passwd", "/etc"] {
        let output = subject.start([command]).run()?;
        output.expect_failure(126, command)?;
        ensure!(output.err().contains("EACCES"), "no errno: {output}");
    }
    Ok(())
}

fn options_after_the_command_are_its_own(subject: &Subject) -> Result<()> {
    let output = subject
        .start(["echo", "--hostname", "x", "--help", "--", "-m", "child"])
        .run()?;
    output.expect_status(0)?.expect_out("--hostname x --help -- -m child\n")?;
    let output = subject.start(["--", "echo", "run"]).run()?;
    output.expect_status(0)?.expect_out("run\n")?;
    Ok(())
}

fn full_and_closed_streams(subject: &Subject) -> Result<()> {
    let full = || File::options().write(true).open("/dev/full");
    let seven = || subject.sh("exit 7");
    let ways: [(&str, io::Result<_>); 6] = [
        ("full stderr", full().map(|to| seven().stderr(to))),
        ("full stdout", full().map(|to| seven().stdout(to))),
        ("closed stderr", Ok(seven().given(Given::Closed(2)))),
        ("closed stdout", Ok(seven().given(Given::Closed(1)))),
        ("closed stdin", Ok(seven().given(Given::Closed(0)))),
        (
            "all closed",
            Ok(seven()
                .given(Given::Closed(0))
                .given(Given::Closed(1))
                .given(Given::Closed(2))),
        ),
    ];
    for (way, start) in ways {
        start?.run()?.expect_status(7).context(way)?.expect_no_panic()?;
    }
    let broken = subject.command([""; 0]).stderr(full()?).run()?;
    broken.expect_status(2).context("usage on a full stderr")?;
    Ok(())
}

fn few_descriptors(subject: &Subject) -> Result<()> {
    // The dynamic linker of the program itself needs one beside the streams.
    let mut last = None;
    for n in 4..=20 {
        let output = subject.sh("exit 7").given(Given::Descriptors(n)).run()?;
        output.expect_no_panic()?;
        let code = output.status.code().unwrap_or(-1);
        if code != 7 {
            ensure!(
                (125..=127).contains(&code),
                "with {n} descriptors: {output}"
            );
            ensure!(
                !output.complaints().is_empty(),
                "silent with {n} descriptors: {output}"
            );
        }
        last = Some(output);
    }
    last.context("nothing tried")?.expect_status(7)?;
    Ok(())
}

/// As long a list as the launcher itself can just be given, under a short
/// name: `/proc/self/exe child` and its options make it longer.
fn an_argument_list_that_is_too_long(subject: &Subject) -> Result<()> {
    let run = |length: u32| -> Result<Output> {
        // A quarter of the stack is for arguments and environment.
        let script = format!(
            "ulimit -s 1024; x=$(printf %0100000d 0); \
             y=$(printf %0{length}d 0); exec \"$@\" $x $x $y"
        );
        let name = subject.sandbox.program.file_name().context("no name")?;
        subject
            .beside(Path::new("bin").join(name), ["run", "true"])
            .through("/bin/sh", ["-c", &script, "sh"])
            .no_variables()
            .run()
    };
    // Before the launcher can say anything, the shell complains.
    let is_refused = |output: &Output| !output.err().contains("running [");
    let (mut fits, mut fails) = (1, 131_000);
    ensure!(is_refused(&run(fails)?), "the list is not too long");
    let mut best = run(fits)?;
    best.expect_status(0)?;
    while fails - fits > 1 {
        let middle = fits.midpoint(fails);
        let output = run(middle)?;
        if is_refused(&output) {
            fails = middle;
        } else {
            (fits, best) = (middle, output);
        }
    }
    best.expect_failure(125, "E2BIG")?;
    Ok(())
}

fn sigchld_ignored_by_the_caller(subject: &Subject) -> Result<()> {
    let output = subject.sh("exit 7").ignoring("CHLD").run()?;
    output.expect_status(7)?.expect_no_panic()?;
    Ok(())
}

/// As under nohup(1): the command is told as little of it as the launcher.
fn what_the_caller_ignores_stays_ignored(subject: &Subject) -> Result<()> {
    let start = subject.sh("echo @@ ready; read line; exit 7");
    let mut running = start.ignoring("HUP INT").with_input().spawn()?;
    running.wait_for_output("@@ ready")?;
    for signal in [Signal::SIGHUP, Signal::SIGINT] {
        running.signal(signal)?;
    }
    // Long enough for a signal that is passed on to arrive.
    thread::sleep(Duration::from_millis(100));
    running.end_input();
    running.wait()?.expect_status(7)?;
    Ok(())
}

/// Docker's default: uid 0, but no right to make namespaces without a user
/// namespace first.
fn root_without_cap_sys_admin(subject: &Subject) -> Result<()> {
    let output = subject
        .sh("id -u; exit 7")
        .through(
            "setpriv",
            ["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"],
        )
        .run()?;
    if output.err().contains("suite: cannot start") {
        return Err(skip("there is no setpriv here"));
    }
    output.expect_status(7)?.expect_out("0\n")?;
    Ok(())
}

fn a_wrong_command_line(subject: &Subject) -> Result<()> {
    for args in [
        &[][..],
        &["run"],
        &["nonsense"],
        &["nonsense", "sh"],
        &["--nonsense", "run", "sh"],
        &["run", "--nonsense", "sh"],
        &["child"],
    ] {
        let output = subject.command(args).run()?;
        output.expect_status(2).with_context(|| format!("{args:?}"))?;
        ensure!(
            output.err().contains("Usage") && output.stdout.is_empty(),
            "{args:?}: no usage on stderr: {output}"
        );
        output.expect_no_panic()?;
    }
    Ok(())
}

fn help_is_for_people(subject: &Subject) -> Result<()> {
    let output = subject.command(["--help"]).run()?;
    output.expect_status(0)?;
    let help = output.out();
    ensure!(help.contains("run"), "no run: {output}");
    ensure!(!help.contains("child"), "the child half shows: {output}");
    let full = File::options().write(true).open("/dev/full")?;
    let output = subject.command(["--help"]).stdout(full).run()?;
    output.expect_no_panic()?;
    Ok(())
}
