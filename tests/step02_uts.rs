//! The suite of step02.

use std::process::ExitCode;

use anyhow::Result;
use suite::harness::Test;
use suite::transcript::Transcript;
use suite::{Step, Subject, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 2,
            name: "step02-uts",
            program: env!("CARGO_BIN_EXE_step02-uts"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    two_host_names,
    two_namespaces,
    its_pid_is_the_hosts,
    no_namespace_is_left,
    child_wants_a_launcher;
as root:
    trace;
as user:
    root_without_root,
    trace_without_root,
];

fn two_host_names(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("hostname")?
        .type_line("step02-uts run hostname")?
        .type_line("step02-uts --hostname web run hostname")?
        .type_line("hostname")?
        .matches("02-hostname");
    Ok(())
}

fn two_namespaces(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("readlink /proc/self/ns/uts")?
        .type_line("step02-uts run readlink /proc/self/ns/uts")?
        .matches("02-namespaces");
    Ok(())
}

fn its_pid_is_the_hosts(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step02-uts run sh -c 'echo $$'")?
        .type_line(
            "sleep 60 & export PID=$!; step02-uts run sh -c 'kill $PID'; \
             wait $PID; echo $?",
        )?
        .matches("02-pid");
    Ok(())
}

fn child_wants_a_launcher(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step02-uts child --launcher 1 hostname; echo $?")?
        .matches("02-launcher");
    Ok(())
}

fn root_without_root(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("id -u")?
        .type_line("step02-uts run sh -c 'id -u; cat /proc/self/uid_map'")?
        .type_line("step02-uts run sh -c 'stat -c %u /etc/passwd; echo >note'")?
        .type_line("stat -c %u note; rm note")?
        .matches("02-root");
    Ok(())
}

fn trace(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "strace -f -qq -e signal=none -e trace=unshare,sethostname \
             step02-uts run true",
        )?
        .matches("02-trace");
    Ok(())
}

/// Into a file: the banner is written piece by piece, between the calls.
fn trace_without_root(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "strace -f -y -o trace -e trace=unshare,write,sethostname \
             step02-uts run true",
        )?
        .type_line("grep -e unshare -e /proc -e sethostname trace; rm trace")?
        .matches("02-trace-without-root");
    Ok(())
}

/// In a user namespace of its own, whose limits its root may set.
fn no_namespace_is_left(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "unshare --user --map-root-user sh -c 'echo 0 > \
             /proc/sys/user/max_uts_namespaces; step02-uts run hostname'",
        )?
        .matches("02-fails-enospc");
    Ok(())
}
