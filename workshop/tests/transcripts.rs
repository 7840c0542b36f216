//! What a participant sees who types `cargo workshop …`, asserted as the
//! steps' transcripts are: an ordinary user in the folder of the course.

mod programs;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use libtest_mimic::Arguments;
use suite::harness::{Session, Test, World, fail, skip};
use suite::transcript::Transcript;
use suite::{Caller, Step, Subject, tests};

const TESTS: &[Test] = tests![needs container:
    a_machine_on_which_everything_runs,
    a_machine_that_forbids_namespaces,
    for_the_instructor;
    anywhere:
    roots,
    the_first_task,
    hints,
    catching_up,
    what_a_step_adds,
    a_kernel_of_ones_own,
    limits_in_the_machine,
];

fn main() -> ExitCode {
    suite::play_part();
    if !Arguments::from_args().list {
        // Before the host is ours alone: what cargo starts is no leak.
        programs::build();
    }
    match run() {
        Ok(status) => status,
        Err(error) => fail(&error),
    }
}

fn run() -> Result<ExitCode> {
    let session = Session::new()?;
    let program = env!("CARGO_BIN_EXE_workshop");
    // Where step 7 runs everything does.
    let step = Step { number: 7, name: "workshop", program };
    let world = World::new(&session, step, Path::new(program))?;
    let trials = TESTS.iter();
    let trials = trials.filter_map(|test| world.trial(Caller::User, test));
    Ok(session.run(trials.collect()))
}

/// `cargo workshop`, built already, in the folder of the course. The terminal
/// is one without colours.
const CARGO: &str = r#"#!/bin/sh
shift
export NO_COLOR=1 WORKSHOP_COURSE="${0%/bin/cargo}"
exec "#;

/// As a clone is before anything was done in it: no `fs`, no `mine`. What is
/// made there goes with it.
fn in_a_clone(
    subject: &Subject,
    test: impl FnOnce(&Subject) -> Result<()>,
) -> Result<()> {
    subject.apart(|subject| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let there = subject.sandbox.dir();
        fs::remove_dir_all(subject.sandbox.fs())?;
        fs::remove_file(subject.sandbox.secret())?;
        for file in ["Cargo.toml", "Cargo.lock"] {
            fs::copy(here.join(file), there.join(file))?;
        }
        for step in programs::STEPS {
            let source = Path::new(step).join("src");
            fs::create_dir_all(there.join(&source))?;
            for file in fs::read_dir(here.join(&source))? {
                let file = source.join(file?.file_name());
                fs::copy(here.join(&file), there.join(&file))?;
            }
        }
        write_cargo(subject, r#"workshop "$@""#)?;
        subject.sandbox.give_away(there)?;
        test(subject)
    })
}

/// The reader's `cargo`, which ends like that.
fn write_cargo(subject: &Subject, end: &str) -> Result<()> {
    let cargo = subject.path("bin/cargo");
    fs::write(&cargo, format!("{CARGO}{end}\n"))?;
    Ok(fs::set_permissions(cargo, Permissions::from_mode(0o755))?)
}

/// Skips where the reader's machine has a program and this one lacks it.
fn needs(subject: &Subject, program: &str) -> Result<()> {
    let found = format!("command -v {program}");
    let mut found = subject.beside("/bin/sh", ["-c", &found]);
    found = found.variable("PATH", subject.search_path());
    match found.run()?.status.success() {
        true => Ok(()),
        false => Err(skip(format!("needs {program}"))),
    }
}

/// The machine of the transcripts: what the doctor reads off it, while what
/// it tries is tried on this one.
fn laptop(line: &str) -> String {
    let read = [
        ("  ✓ kernel       ", "6.12.48+deb13-amd64"),
        ("  – around us    ", "no container and no chroot seen"),
        (
            "  – mounts       ",
            "/ is shared, as systemd has it: the steps cut it loose",
        ),
        ("  – layout       ", "version 2"),
    ];
    for (title, value) in read {
        if line.starts_with(title) {
            return format!("{title}{value}");
        }
    }
    match line.split_once("in a group below ") {
        Some((title, _)) => format!(
            "{title}in a group below /sys/fs/cgroup/user.slice/shell.scope"
        ),
        None => line.to_owned(),
    }
}

fn a_machine_on_which_everything_runs(subject: &Subject) -> Result<()> {
    for tool in ["busybox", "strace", "cc"] {
        needs(subject, tool)?;
    }
    in_a_clone(subject, |subject| {
        Transcript::new(subject)
            .type_line("cargo workshop doctor")?
            .with(laptop)
            .matches("00-doctor");
        Ok(())
    })
}

/// In a user namespace of its own, an ordinary user's, whose limit its root
/// has set before it gave up what it could do.
const FORBIDDING: &str = r#"unshare --user --map-user=1000 --map-group=1000 \
    --keep-caps sh -c '
        echo 0 > /proc/sys/user/max_user_namespaces
        exec setpriv --ambient-caps=-all --inh-caps=-all workshop "$@"
    ' workshop "$@""#;

fn a_machine_that_forbids_namespaces(subject: &Subject) -> Result<()> {
    needs(subject, "busybox")?;
    in_a_clone(subject, |subject| {
        write_cargo(subject, FORBIDDING)?;
        Transcript::new(subject)
            .type_line("cargo workshop doctor")?
            .with(laptop)
            .matches("00-doctor-forbidden");
        Ok(())
    })
}

fn for_the_instructor(subject: &Subject) -> Result<()> {
    in_a_clone(subject, |subject| {
        Transcript::new(subject)
            .type_line("cargo workshop doctor --json > laptop.json; echo $?")?
            .type_line("grep -o '\"steps\":.*' laptop.json")?
            .matches("00-doctor-json");
        Ok(())
    })
}

fn roots(subject: &Subject) -> Result<()> {
    in_a_clone(subject, |subject| {
        Transcript::new(subject)
            .type_line("cargo workshop rootfs")?
            .type_line("cargo workshop rootfs")?
            .type_line(
                "tar c -C fs . | cargo workshop rootfs --from - --dir other",
            )?
            .matches("00-rootfs");
        Ok(())
    })
}

fn the_first_task(subject: &Subject) -> Result<()> {
    in_a_clone(subject, |subject| {
        Transcript::new(subject)
            .type_line("cargo workshop start")?
            .matches("00-start");
        Ok(())
    })
}

fn hints(subject: &Subject) -> Result<()> {
    in_a_clone(subject, |subject| {
        Transcript::new(subject).type_line("cargo workshop start")?;
        Transcript::new(subject)
            .type_line("cargo workshop hint")?
            .type_line("cargo workshop hint")?
            .matches("00-hint");
        Ok(())
    })
}

fn catching_up(subject: &Subject) -> Result<()> {
    in_a_clone(subject, |subject| {
        Transcript::new(subject).type_line("cargo workshop start")?;
        Transcript::new(subject)
            .type_line("cargo workshop catch-up 05")?
            .matches("00-catch-up");
        Ok(())
    })
}

fn what_a_step_adds(subject: &Subject) -> Result<()> {
    in_a_clone(subject, |subject| {
        Transcript::new(subject)
            .type_line("cargo workshop diff 01 02 | head -n 40")?
            .matches("00-diff");
        Ok(())
    })
}

/// Skips where no such machine can be had.
fn needs_user_mode_linux(subject: &Subject) -> Result<()> {
    needs(subject, "linux.uml || command -v linux")
        .map_err(|_| skip("needs User-Mode Linux"))
}

fn a_kernel_of_ones_own(subject: &Subject) -> Result<()> {
    needs_user_mode_linux(subject)?;
    in_a_clone(subject, |subject| {
        Transcript::new(subject)
            .type_line("id -u; cargo workshop vm id -u")?
            .type_line("cargo workshop vm cat /proc/self/cgroup")?
            .type_line("cargo workshop vm sh -c 'exit 7'; echo $?")?
            .matches("00-vm");
        Ok(())
    })
}

/// Step 7 on version 2, as an ordinary user, whatever this machine has.
fn limits_in_the_machine(subject: &Subject) -> Result<()> {
    needs_user_mode_linux(subject)?;
    let program = Path::new(env!("CARGO_BIN_EXE_workshop"));
    let step = program.with_file_name("step07-cgroups");
    in_a_clone(subject, |subject| {
        fs::copy(&step, subject.path("bin/step07-cgroups"))
            .context("cannot copy step07-cgroups")?;
        Transcript::new(subject)
            .type_line(
                "cargo workshop vm --user step07-cgroups run dd \
                 if=/dev/zero of=/dev/null bs=60M count=1 status=none; echo $?",
            )?
            .matches("00-vm-limits");
        Ok(())
    })
}
