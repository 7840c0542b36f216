//! The suite of step05.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use suite::harness::Test;
use suite::transcript::Transcript;
use suite::{Step, Subject, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 5,
            name: "step05-proc",
            program: env!("CARGO_BIN_EXE_step05-proc"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    ps_shows_three,
    mounts_go_with_the_container,
    proc_stays_below_the_root,
    the_escape_still_works,
    the_way_out_by_a_descriptor,
    readme_shows_a_session;
    as user:
    trace,
];

fn ps_shows_three(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step05-proc run sh -c 'ps -o pid,args; :'")?
        .matches("05-ps");
    Ok(())
}

fn mounts_go_with_the_container(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step05-proc run cat /proc/mounts")?
        .type_line("grep fs/proc /proc/mounts; echo $?")?
        .matches("05-mounts");
    Ok(())
}

fn proc_stays_below_the_root(subject: &Subject) -> Result<()> {
    subject.apart(|subject| {
        Transcript::new(subject)
            .type_line("rmdir fs/proc; ln -s /home fs/proc")?
            .type_line("step05-proc run true; echo $?")?
            .matches("05-symlink");
        Ok(())
    })
}

/// The line of chapter 4, with another program.
fn the_escape_still_works(subject: &Subject) -> Result<()> {
    subject.needs_busybox_root()?;
    Transcript::new(subject)
        .type_line(
            "step05-proc run nsenter -r/tmp -w/ bin/busybox chroot \
             ../../../../../../.. cat $PWD/secret",
        )?
        .matches("05-escape");
    Ok(())
}

fn the_way_out_by_a_descriptor(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step05-proc run cat /proc/self/fd/7$PWD/secret 7</")?
        .matches("05-descriptor");
    Ok(())
}

/// Root needs no user namespace: one flag less in the first line.
fn trace(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "strace -f -qq -e signal=none -e trace=unshare,openat2,mount,chroot \
             step05-proc run true",
        )?
        .matches("05-trace");
    Ok(())
}

/// The session at the top of the README is a transcript, too, but for how the
/// reader starts the program.
fn readme_shows_a_session(subject: &Subject) -> Result<()> {
    let mut transcript = Transcript::new(subject);
    transcript
        .type_line("step05-proc run sh -c 'hostname; id -u; exit 7'; echo $?")?
        .type_line("step05-proc run sh -c 'ps -o pid,args; :'")?
        .matches("05-readme");
    let session = transcript
        .text()
        .replace("$ step05-proc", "$ cargo run -q -p step05-proc --");
    ensure!(
        include_str!("../README.md").contains(&session),
        "the README does not show this session:\n{session}"
    );
    Ok(())
}
