//! The suite of step01.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use suite::harness::Test;
use suite::sandbox::Sandbox;
use suite::transcript::Transcript;
use suite::{PROPERTIES, Step, Subject, Verdict, process, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 1,
            name: "step01-exec",
            program: env!("CARGO_BIN_EXE_step01-exec"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    all_is_the_hosts,
    the_host_name_is_the_hosts,
    fork_and_exec,
    its_processes,
    statuses,
    signals_come_through,
    trace,
    three_lines_of_shell_break_two_promises,
];

fn all_is_the_hosts(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("hostname; pwd")?
        .type_line("step01-exec run sh -c 'hostname; pwd; echo hi > note'")?
        .type_line("cat note; rm note")?
        .matches("01-leaks");
    Ok(())
}

fn the_host_name_is_the_hosts(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("hostname; readlink /proc/self/ns/uts")?
        .type_line(
            "step01-exec run sh -c 'hostname; readlink /proc/self/ns/uts'",
        )?
        .matches("01-hostname");
    Ok(())
}

fn fork_and_exec(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step01-exec run echo hello")?
        .type_line("step01-exec run sh -c 'echo $$'")?
        .matches("01-fork-and-exec");
    Ok(())
}

fn its_processes(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step01-exec run ps -e -o pid,ppid,args")?
        .matches("01-ps");
    Ok(())
}

fn statuses(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step01-exec run sh -c 'exit 7'; echo $?")?
        .type_line("step01-exec run sh -c 'kill -KILL $$'; echo $?")?
        .type_line("step01-exec run no-such-command; echo $?")?
        .type_line("step01-exec run /etc/passwd; echo $?")?
        .matches("01-statuses");
    Ok(())
}

/// `$PPID` is the launcher: TERM has to take the way through it.
fn signals_come_through(subject: &Subject) -> Result<()> {
    let script = "kill -TERM $PPID; exec sleep 10";
    Transcript::new(subject)
        .type_line(&format!("step01-exec run sh -c '{script}'; echo $?"))?
        .matches("01-signals");
    Ok(())
}

/// With a path: the searched folders differ from host to host.
fn trace(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "strace -f -qq -e trace=process \
             step01-exec run /bin/sh -c 'exit 7'",
        )?
        .matches("01-trace");
    Ok(())
}

/// What the exercise of the book's first chapter says.
fn three_lines_of_shell_break_two_promises(subject: &Subject) -> Result<()> {
    let script = subject.path("three-lines");
    fs::write(&script, "#!/bin/sh\nshift\n\"$@\"\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let sandbox = Sandbox::new(&script, subject.caller);
    fs::remove_file(&script)?;
    let sandbox = &sandbox?;
    let mut broken = Vec::new();
    for row in PROPERTIES.iter().filter(|row| row.of(1) == Verdict::Holds) {
        let found = (row.probe)(&Subject { sandbox, ..*subject })?;
        if found.verdict == Verdict::Leaks {
            process::sweep();
            broken.push(row.name);
        }
    }
    ensure!(
        broken == ["signals at the start", "TERM arrives"],
        "the script broke {broken:?}"
    );
    Ok(())
}
