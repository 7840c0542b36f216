//! What `SECURITY.md` says, in both directions: what protects, and what is
//! left open.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::OWN_PROGRAM;
use crate::caller::Caller;
use crate::harness::Test;
use crate::process;
use crate::program::Subject;
use crate::tests;

/// From step04 on.
pub const AS_ROOT: &[Test] =
    tests![as root: a_set_user_id_program_gains_nothing];

/// From step06 on.
pub const PIVOTED: &[Test] =
    tests![needs container: a_folder_as_a_stream_is_refused];

/// For step07. Where one of these fails because it is closed now, mend
/// `SECURITY.md`.
pub const LEFT_OPEN: &[Test] = tests![needs container:
    the_launcher_is_out_of_reach,
    there_is_no_seccomp_filter_and_no_capability_is_dropped,
    only_root_writes_the_settings_of_the_kernel,
    only_root_makes_device_nodes,
    the_file_of_pid_1_can_be_changed,
    pid_1_tells_its_arguments,
];

/// Root that has become somebody else starts a set-user-ID program.
fn a_set_user_id_program_gains_nothing(subject: &Subject) -> Result<()> {
    subject.apart(|subject| {
        let (fs, name) = (subject.sandbox.fs(), Path::new("/bin/set-user-id"));
        let inside = name.strip_prefix("/")?;
        rootfs::add_program(&fs, Path::new(OWN_PROGRAM), inside)?;
        let mode = fs::Permissions::from_mode(0o4755);
        fs::set_permissions(fs.join(inside), mode)?;
        let output = subject.probe("start-as-another", [name]).run()?;
        let findings = output.findings();
        let euid = findings.get("euid").with_context(|| output.to_string())?;
        ensure!(euid == "54321", "it became {euid}");
        Ok(())
    })
}

/// It would stay open in the command, and lead past every root.
fn a_folder_as_a_stream_is_refused(subject: &Subject) -> Result<()> {
    for (name, redirection) in [
        ("stdin", "</"),
        ("stdout", "1</"),
        // The reason is lost with it.
        ("", "2</"),
    ] {
        let script = format!("exec \"$@\" {redirection}");
        let output = subject
            .start(["true"])
            .through("/bin/sh", ["-c", &script, "sh"])
            .run()?;
        output.expect_status(125).context(redirection)?;
        if !name.is_empty() {
            output.expect_failure(125, &format!("{name} is a folder"))?;
        }
    }
    Ok(())
}

/// It has no number inside, so nobody can trace, stop or end it.
fn the_launcher_is_out_of_reach(subject: &Subject) -> Result<()> {
    let mut running = subject
        .sh("read pid; ls -d /proc/$pid; kill -9 $pid; echo $?")
        .with_input()
        .spawn()?;
    let launcher = running.process();
    running.write(format!("{}\n", launcher.0).as_bytes())?;
    running.end_input();
    let output = running.wait()?;
    output
        .expect_status(0)?
        .expect_out("1\n")
        .with_context(|| output.to_string())?;
    Ok(())
}

fn there_is_no_seccomp_filter_and_no_capability_is_dropped(
    subject: &Subject,
) -> Result<()> {
    let held = subject.hold()?;
    let inside = |key| held.process.status(key);
    let own = |key| process::own().status(key);
    ensure!(inside("Seccomp")? == own("Seccomp")?, "there is a filter now");
    let capabilities = inside("CapEff")?;
    let all = match subject.caller {
        Caller::Root => own("CapEff")?,
        // Every one that there is, over what belongs to the container.
        Caller::User => inside("CapBnd")?,
    };
    ensure!(capabilities == all, "{capabilities} of {all} are left");
    held.release()?;
    Ok(())
}

/// The same value again. Root's container has the host's user namespace.
fn only_root_writes_the_settings_of_the_kernel(
    subject: &Subject,
) -> Result<()> {
    let file = "/proc/sys/vm/swappiness";
    let script = format!("v=$(cat {file}) && echo $v 2>&1 >{file}");
    let output = subject.sh(&script).run()?;
    let is_written = output.status.success();
    let is_root = subject.caller == Caller::Root;
    ensure!(is_written == is_root, "written: {is_written}; {output}");
    Ok(())
}

fn only_root_makes_device_nodes(subject: &Subject) -> Result<()> {
    subject.apart(|subject| {
        let output = subject.probe("mknod", ["/zero"]).run()?;
        let findings = output.findings();
        let expected = match subject.caller {
            Caller::Root => "Ok(())",
            Caller::User => "Err(EPERM)",
        };
        let got = findings.get("mknod")?;
        ensure!(got == expected, "{got}; {output}");
        Ok(())
    })
}

/// It is the step's own program, on the host: /proc/1/exe is no path but the
/// file itself. To write into it is refused while it runs, not to change its
/// mode.
fn the_file_of_pid_1_can_be_changed(subject: &Subject) -> Result<()> {
    subject.apart(|subject| {
        let program = &subject.sandbox.program;
        let output = subject
            .sh("chmod 4711 /proc/1/exe && echo x >>/proc/1/exe")
            .run()?;
        let err = output.err().to_lowercase();
        ensure!(err.contains("text file busy"), "{output}");
        let mode = program.metadata()?.permissions().mode() & 0o7777;
        ensure!(mode == 0o4711, "its mode is {mode:o} now; {output}");
        Ok(())
    })
}

fn pid_1_tells_its_arguments(subject: &Subject) -> Result<()> {
    let root = subject.sandbox.fs();
    let script = "tr '\\0' ' ' </proc/1/cmdline";
    let fs = root.to_string_lossy();
    let command = ["--rootfs", &fs, "run", "sh", "-c", script];
    let running = subject.command(command).spawn()?;
    let launcher = running.process().0;
    let output = running.wait()?;
    for told in [format!("--launcher {launcher} "), format!("--rootfs {fs} ")] {
        ensure!(output.out().contains(&told), "no {told:?} in {output}");
    }
    Ok(())
}
