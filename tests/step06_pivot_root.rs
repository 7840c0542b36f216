//! The suite of step06.

use std::process::ExitCode;

use anyhow::Result;
use suite::harness::Test;
use suite::transcript::Transcript;
use suite::{Step, Subject, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 6,
            name: "step06-pivot-root",
            program: env!("CARGO_BIN_EXE_step06-pivot-root"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    own_devices,
    the_escape_fails,
    the_whole_mount_table,
    no_way_out_by_a_descriptor,
    trace,
    no_limits,
];

fn own_devices(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step06-pivot-root run ls /")?
        .type_line("step06-pivot-root run ls /dev")?
        .type_line("step06-pivot-root run sh -c 'echo gone > /dev/null'")?
        .matches("06-devices");
    Ok(())
}

/// What the chapter of step07 opens with.
fn no_limits(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step06-pivot-root run sh -c \
             'for n in $(seq 99); do sleep 9 & done; echo $n sleepers'",
        )?
        .type_line(
            "step06-pivot-root run dd if=/dev/zero of=/dev/null bs=200M \
             count=1 status=none; echo $?",
        )?
        .matches("06-limits");
    Ok(())
}

/// The line of chapter 4, with another program.
fn the_escape_fails(subject: &Subject) -> Result<()> {
    subject.needs_busybox_root()?;
    Transcript::new(subject)
        .type_line(
            "step06-pivot-root run nsenter -r/tmp -w/ bin/busybox chroot \
             ../../../../../../.. cat $PWD/secret",
        )?
        .matches("06-escape");
    Ok(())
}

fn the_whole_mount_table(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step06-pivot-root run cut -d' ' -f2 /proc/mounts")?
        .matches("06-mounts");
    Ok(())
}

fn no_way_out_by_a_descriptor(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step06-pivot-root run cat /proc/self/fd/7$PWD/secret 7</")?
        .matches("06-descriptor");
    Ok(())
}

fn trace(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "strace -f -qq -e signal=none \
             -e trace=mount,chdir,fchdir,pivot_root,umount2 \
             step06-pivot-root run true",
        )?
        .matches("06-trace");
    Ok(())
}
