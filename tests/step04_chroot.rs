//! The suite of step04.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use suite::harness::{Test, skip};
use suite::property::PROPERTIES;
use suite::sandbox::Sandbox;
use suite::transcript::Transcript;
use suite::{Step, Subject, process, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 4,
            name: "step04-chroot",
            program: env!("CARGO_BIN_EXE_step04-chroot"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    ls_sees_the_new_root,
    files_and_variables_are_its_own,
    ps_fails,
    errors,
    a_program_without_its_loader,
    the_escape,
    what_the_kernel_saw;
as user:
    a_container_of_shell,
];

fn ls_sees_the_new_root(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step04-chroot run ls /")?
        .matches("04-ls");
    Ok(())
}

fn files_and_variables_are_its_own(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step04-chroot run cat secret")?
        .type_line("step04-chroot run find / -name secret")?
        .type_line("PASSWORD=hunter2 step04-chroot run env")?
        .matches("04-files");
    Ok(())
}

fn ps_fails(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step04-chroot run ls /proc")?
        .type_line("step04-chroot run ps")?
        .matches("04-ps");
    Ok(())
}

fn errors(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step04-chroot --rootfs nowhere run sh; echo $?")?
        .type_line("step04-chroot run no-such-command; echo $?")?
        .matches("04-errors");
    Ok(())
}

fn a_program_without_its_loader(subject: &Subject) -> Result<()> {
    if !Path::new("/lib64/ld-linux-x86-64.so.2").exists() {
        return Err(skip("needs glibc for x86-64"));
    }
    subject.apart(|subject| {
        Transcript::new(subject)
            .type_line("mkdir -p bare/bin; cp /bin/sh bare/bin; ls bare/bin")?
            .type_line("step04-chroot --rootfs bare run sh -c 'echo hi'")?
            .type_line("cp --parents $(ldd /bin/sh | grep -o '/[^ ]*') bare")?
            .type_line("step04-chroot --rootfs bare run sh -c 'echo hi'")?
            .matches("04-loader");
        Ok(())
    })
}

/// In chapter 6 the same line fails.
fn the_escape(subject: &Subject) -> Result<()> {
    subject.needs_busybox_root()?;
    Transcript::new(subject)
        .type_line(
            "step04-chroot run nsenter -r/tmp -w/ bin/busybox chroot \
             ../../../../../../.. cat $PWD/secret",
        )?
        .matches("04-escape");
    Ok(())
}

fn what_the_kernel_saw(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "strace -f -qq -e signal=none -e trace=chroot,chdir,execve \
             step04-chroot run true",
        )?
        .matches("04-strace");
    Ok(())
}

/// The scripts of the chapter's exercise, as they stand there, and what the
/// suite says of them.
fn a_container_of_shell(subject: &Subject) -> Result<()> {
    let options = ["--user", "--map-root-user", "--fork", "--kill-child"];
    let args = options.into_iter().chain(["true"]);
    if !subject.beside("unshare", args).run()?.status.success() {
        return Err(skip("needs the unshare of util-linux"));
    }
    const BEGIN: &str = "```sh\ncat > mine.sh";
    let chapter = include_str!("../book/text/04-chroot.md");
    let scripts: Vec<_> = chapter
        .match_indices(BEGIN)
        .filter_map(|(at, _)| chapter[at..].split("```").nth(1))
        .map(|fence| fence.trim_start_matches("sh\n"))
        .collect();
    let expected: [&[&str]; 2] = [
        &[
            "exit status",
            "signals at the start",
            "own environment",
            "no new privileges",
        ],
        &["signals at the start"],
    ];
    ensure!(scripts.len() == expected.len(), "other scripts: {scripts:?}");
    for (script, expected) in scripts.iter().zip(expected) {
        subject.apart(|subject| {
            subject
                .beside("/bin/sh", ["-c", script])
                .run()?
                .expect_status(0)?;
            let mine = subject.path("mine.sh");
            let sandbox = Sandbox::new(&mine, subject.caller)?;
            let subject = Subject { sandbox: &sandbox, ..*subject };
            let mut wrong = Vec::new();
            // Some versions of unshare(1) ignore it, some die of it.
            let rows = PROPERTIES.iter();
            for row in rows.filter(|row| row.name != "TERM arrives") {
                let found = (row.probe)(&subject)?;
                process::sweep();
                if found.verdict != row.of(4) {
                    wrong.push(row.name);
                }
            }
            ensure!(wrong == expected, "wrong in {script}: {wrong:?}");
            Ok(())
        })?;
    }
    Ok(())
}
