//! What a participant sees who types `cargo workshop …`, asserted as the
//! steps' transcripts are: an ordinary user in the folder of the course.

mod programs;

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use libtest_mimic::Arguments;
use nix::unistd::gethostname;
use suite::harness::{Session, Test, World, fail, skip};
use suite::sandbox::Sandbox;
use suite::transcript::{HOST_NAME, Transcript};
use suite::{Caller, Step, Subject, tests};

const TESTS: &[Test] = tests![needs container:
    a_machine_on_which_everything_runs,
    a_machine_that_forbids_namespaces,
    for_the_instructor,
    checking,
    checking_another_program;
    anywhere:
    the_commands,
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

/// `cargo workshop`, built already, in the folder of the course, and `cargo
/// build`, whose work is done, too. The terminal is one without colours.
const CARGO: &str = r#"#!/bin/sh
export CARGO="$0" NO_COLOR=1 WORKSHOP_COURSE="${0%/bin/cargo}"
if [ "$1" = build ]; then
    echo "{ \"executable\": \"$WORKSHOP_COURSE/target/debug/mine\" }"
    exit
fi
shift
exec "#;

/// As a clone is before anything was done in it: no `fs`, no `mine`. What is
/// made there goes with it.
fn in_a_clone(
    subject: &Subject,
    test: impl FnOnce(&Subject) -> Result<()>,
) -> Result<()> {
    let sandbox = Sandbox::without_fs(&subject.sandbox.program, Caller::User)?;
    let subject = &Subject { sandbox: &sandbox, ..*subject };
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let there = sandbox.dir();
    fs::remove_file(sandbox.secret())?;
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
    sandbox.give_away(there)?;
    test(subject)
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

/// What the reader's machine has of what the doctor asks for.
fn needs_tools(subject: &Subject) -> Result<()> {
    let mut tools = ["busybox", "strace", "cc"].into_iter();
    tools.try_for_each(|tool| needs(subject, tool))
}

/// The machine of the transcripts: what the doctor reads off it, while what
/// it tries is tried on this one.
fn laptop(text: &str) -> String {
    let read = [
        ("  ✓ kernel       ", "6.12.48+deb13-amd64"),
        ("  – around us    ", "no container and no chroot seen"),
        (
            "  – mounts       ",
            "/ is shared, as systemd has it: the steps cut it loose",
        ),
        ("  – layout       ", "version 2"),
    ];
    let shown = |line: &str| {
        // What else is on the line has been wiped away, as by a progress bar.
        let line = line.rsplit("\x1b[2K").next().unwrap_or_default();
        let known = read.iter().find(|(title, _)| line.starts_with(title));
        match (known, line.split_once(GROUP)) {
            (Some((title, value)), _) => format!("{title}{value}\n"),
            (_, Some((title, _))) => format!("{title}{GROUP}{OWN_GROUP}\n"),
            _ => format!("{line}\n"),
        }
    };
    let host = gethostname().unwrap_or_default();
    let host = format!("{:?}", host.to_string_lossy());
    let text: String = text.lines().map(shown).collect();
    text.replace(&host, &format!("{HOST_NAME:?}"))
}

/// What the doctor says of a limit that it could set.
const GROUP: &str = "in a group below ";

/// Where the reader's shell is.
const OWN_GROUP: &str = "/sys/fs/cgroup/user.slice/shell.scope";

fn the_commands(subject: &Subject) -> Result<()> {
    in_a_clone(subject, |subject| {
        Transcript::new(subject)
            .type_line("cargo workshop")?
            .matches("00-workshop");
        Ok(())
    })
}

/// What is in a root, which depends on this machine's programs.
fn contents(text: &str) -> String {
    let shown = |line: &str| match laptop(line).split_once(": ") {
        Some((made, counts)) if counts.ends_with(" MB\n") => {
            format!("{made}: 275 files, 2.0 MB\n")
        }
        _ => laptop(line),
    };
    text.lines().map(shown).collect()
}

fn a_machine_on_which_everything_runs(subject: &Subject) -> Result<()> {
    needs_tools(subject)?;
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
    needs_tools(subject)?;
    in_a_clone(subject, |subject| {
        write_cargo(subject, FORBIDDING)?;
        Transcript::new(subject)
            .type_line("cargo workshop doctor")?
            .with(laptop)
            .matches("00-doctor-forbidden");
        Ok(())
    })
}

/// Two participants have run the doctor, and sent what it said.
fn for_the_instructor(subject: &Subject) -> Result<()> {
    needs(subject, "jq")?;
    in_a_clone(subject, |subject| {
        let mut answers = Transcript::new(subject);
        answers
            .type_line("cargo workshop doctor --json > anna.json; echo $?")?;
        write_cargo(subject, FORBIDDING)?;
        Transcript::new(subject)
            .type_line("cargo workshop doctor --json > ben.json")?;
        answers
            .type_line(
                r#"jq -r '"\(input_filename): \(.steps | map(.hint) | max // "all seven")"' *.json"#,
            )?
            .matches("00-doctor-json");
        Ok(())
    })
}

fn roots(subject: &Subject) -> Result<()> {
    needs(subject, "busybox")?;
    in_a_clone(subject, |subject| {
        Transcript::new(subject)
            .type_line("cargo workshop rootfs")?
            .type_line("cargo workshop rootfs")?
            .type_line(
                "tar c -C fs . | cargo workshop rootfs --from - --dir other",
            )?
            .with(contents)
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

/// What the participant's source would be compiled to is a step's program.
fn checking(subject: &Subject) -> Result<()> {
    in_a_clone(subject, |subject| {
        add_step("step01-exec", subject, "target/debug/mine")?;
        Transcript::new(subject).type_line("cargo workshop start")?;
        Transcript::new(subject)
            .type_line("cargo workshop check")?
            .with(laptop)
            .matches("00-check");
        add_step("step02-uts", subject, "target/debug/mine")?;
        Transcript::new(subject)
            .type_line("cargo workshop check | tail -n 15")?
            .matches("00-check-holds");
        Ok(())
    })
}

fn checking_another_program(subject: &Subject) -> Result<()> {
    in_a_clone(subject, |subject| {
        let program = "target/debug/step04-chroot";
        add_step("step04-chroot", subject, program)?;
        Transcript::new(subject)
            .type_line(&format!("cargo workshop check 05 --bin {program}"))?
            .matches("00-check-bin");
        Ok(())
    })
}

fn what_a_step_adds(subject: &Subject) -> Result<()> {
    in_a_clone(subject, |subject| {
        Transcript::new(subject)
            .type_line("cargo workshop diff 04 05 | grep '^@@ '")?
            .type_line(
                "cargo workshop diff 04 05 | \
                 sed -n '/fn enter_root/,/fn mount_proc/p'",
            )?
            .matches("00-diff");
        Ok(())
    })
}

/// Puts a step's program there.
fn add_step(step: &str, subject: &Subject, to: &str) -> Result<()> {
    let to = subject.path(to);
    let folder = to.parent().context("no folder")?;
    fs::create_dir_all(folder)?;
    let program = Path::new(env!("CARGO_BIN_EXE_workshop"));
    fs::copy(program.with_file_name(step), &to)
        .with_context(|| format!("cannot copy {step}"))?;
    subject.sandbox.give_away(folder)
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
            .type_line("id -u")?
            .type_line(
                "cargo workshop vm sh -c \
                 'id -u; cat /sys/fs/cgroup/cgroup.controllers; exit 7'; \
                 echo $?",
            )?
            .matches("00-vm");
        Ok(())
    })
}

/// Step 7 on version 2, as an ordinary user, whatever this machine has.
fn limits_in_the_machine(subject: &Subject) -> Result<()> {
    // It takes its time, and nobody in a room has to wait for it.
    if env::var_os("CI").is_none() {
        return Err(skip("is for CI"));
    }
    needs_user_mode_linux(subject)?;
    needs(subject, "busybox")?;
    in_a_clone(subject, |subject| {
        add_step("step07-cgroups", subject, "bin/step07-cgroups")?;
        Transcript::new(subject).type_line("cargo workshop rootfs")?;
        Transcript::new(subject)
            .type_line(
                "cargo workshop vm --user step07-cgroups run \
                 dd if=/dev/zero of=/dev/null bs=60M count=1; echo $?",
            )?
            .matches("00-vm-memory");
        // Another machine, in which PIDs begin anew.
        Transcript::new(subject)
            .type_line(
                "cargo workshop vm --user step07-cgroups run --pids-limit 4 \
                 sh -c 'for n in 3 4 5; do sleep 9 & echo $n; done'",
            )?
            .matches("00-vm-processes");
        Ok(())
    })
}
