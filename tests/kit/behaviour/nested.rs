//! Containers in containers: each step inside step05 and those after it. It
//! works, or it says why not.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::caller::Caller;
use crate::harness::{Test, skip};
use crate::probe;
use crate::program::{Output, Start, Subject};
use crate::sandbox::PROBE;
use crate::start::{self, Given};
use crate::tests;

/// From step05 on.
pub const UNDER_FIRE: &[Test] = tests![needs container:
    each_step_inside;
    as root:
    each_step_inside_as_an_ordinary_user;
];

/// From step06 on: in a chroot nothing can be made that has a root.
pub const PIVOTED: &[Test] = tests![needs container: three_levels_deep];

/// What becomes of a container in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is whole.
    Works,
    /// No mount table can be made private in a chroot.
    NoMounts,
    /// No user namespace can be made in a chroot.
    NoUsers,
    /// No control groups can be seen.
    NoGroups,
}

use Verdict::{NoGroups as G, NoMounts as M, NoUsers as U, Works as W};

/// What is true of step01 to step07 in each of the last three, first for
/// root inside, then for an ordinary user there. Both directions are asserted.
#[rustfmt::skip]
const TABLE: [(usize, [Verdict; 7], [Verdict; 7]); 3] = [
    //   1  2  3  4  5  6  7   1  2  3  4  5  6  7
    (5, [W, W, W, W, M, M, G], [W, U, U, U, U, U, G]),
    (6, [W, W, W, W, W, W, G], [W, W, W, W, W, W, G]),
    (7, [W, W, W, W, W, W, G], [W, W, W, W, W, W, G]),
];

impl Verdict {
    /// What is said of it: what failed, and the hint. Nothing where it works.
    fn says(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Works => None,
            Self::NoMounts => Some([
                "cannot make the mount table private: Invalid argument \
                 (EINVAL)",
                "hint: this process is in a chroot (its / is not a mount \
                 point), where the kernel refuses to make mounts private: \
                 leave it with `exit` and run this outside",
            ]),
            Self::NoUsers => Some([
                "Operation not permitted (EPERM)",
                "hint: this process is in a chroot (its / is not a mount \
                 point), where the kernel refuses a user namespace: leave it \
                 with `exit` and run this outside",
            ]),
            Self::NoGroups => Some([
                "is not mounted here",
                "hint: no cgroup file system is mounted that we could see: \
                 run this outside of the container or chroot that we are in, \
                 or where there is none, `mount -t cgroup2 cgroup2 \
                 /sys/fs/cgroup` as root",
            ]),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.says() {
            None => f.write_str("works"),
            Some(lines) => write!(f, "says {lines:?}"),
        }
    }
}

/// The steps, by their packages' names.
const STEPS: [&str; 7] = [
    "step01-exec",
    "step02-uts",
    "step03-pid",
    "step04-chroot",
    "step05-proc",
    "step06-pivot-root",
    "step07-cgroups",
];

/// What runs in the innermost container, until it is told to end.
const INNERMOST: &str = "echo '@@ rea''dy'; hostname; read line; exit 7";

fn each_step_inside(subject: &Subject) -> Result<()> {
    let row = TABLE.iter().find(|row| row.0 == subject.step);
    check(subject, row.context("no row")?.1, &[])
}

/// Somebody in root's container who has given up being root.
fn each_step_inside_as_an_ordinary_user(subject: &Subject) -> Result<()> {
    let (uid, gid) = Caller::User.ids();
    let ids = Given::Ids(uid, gid);
    let can = [probe::PART, "can-have-user-namespace"];
    let can = Start::of(&subject.sandbox.probe(), can, subject.sandbox.dir())
        .given(ids.clone())
        .run()?;
    if can.findings().last("user").is_none() {
        return Err(skip("user namespaces are forbidden here"));
    }
    let row = TABLE.iter().find(|row| row.0 == subject.step);
    let caller = [format!("/{PROBE}").into(), start::PART.into()];
    let caller = [&caller[..], &[ids.to_arg(), "--".into()]].concat();
    check(subject, row.context("no row")?.2, &caller)
}

/// Runs each step in the one under test, by `caller` in there, and compares
/// what becomes of it.
fn check(
    subject: &Subject,
    expected: [Verdict; 7],
    caller: &[OsString],
) -> Result<()> {
    let programs = programs()?;
    subject.apart(|subject| {
        let outer = subject.sandbox.fs();
        for program in &programs {
            add(&outer, program)?;
        }
        rootfs::build(&outer.join("fs"))?;
        subject.sandbox.give_away(&outer)?;
        let mut wrong = Vec::new();
        for (n, expected) in (1..).zip(expected) {
            if let Err(error) = one(subject, n, expected, caller) {
                wrong.push(format!(
                    "step{n:02} in step{:02}: {error:#}",
                    subject.step
                ));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

fn one(
    subject: &Subject,
    inner: usize,
    expected: Verdict,
    caller: &[OsString],
) -> Result<()> {
    let mut command = caller.to_vec();
    command.push(format!("/bin/{}", STEPS[inner - 1]).into());
    command.push("run".into());
    let mut hostname = "container";
    if inner > 1 {
        hostname = "inner";
        command.extend(["--hostname".into(), hostname.into()]);
    }
    command.extend(["sh", "-c", INNERMOST].map(Into::into));
    let output = inside(subject, &command, usize::from(inner >= 3))
        .with_context(|| format!("expected that it {expected}"))?;
    let wanted = match expected {
        Verdict::Works => (7, format!("@@ ready\n{hostname}\ncontainer\n")),
        _ => (125, "container\n".to_owned()),
    };
    let said = output.complaints();
    let is_said = match expected.says() {
        None => said.is_empty(),
        Some(lines) => {
            let name = format!("{}: ", STEPS[inner - 1]);
            said.len() == 2
                && said[0].starts_with(&name)
                && said[0].ends_with(lines[0])
                && said[1] == lines[1]
        }
    };
    ensure!(
        is_said
            && (output.status.code(), output.out())
                == (Some(wanted.0), wanted.1),
        "expected that it {expected}, got {output}"
    );
    output.expect_no_panic()?;
    Ok(())
}

/// Runs a container in the one under test, and looks at its innermost process
/// from outside: it is `deeper` by so many PID namespaces.
fn inside(
    subject: &Subject,
    command: &[OsString],
    deeper: usize,
) -> Result<Output> {
    let script = "\"$@\"; status=$?; hostname; exit $status";
    let outer = ["sh", "-c", script, "sh"].map(OsString::from);
    let start = subject.start(outer.iter().chain(command)).with_input();
    let mut running = start.spawn()?;
    if running.wait_for_output("@@ ready").is_ok() {
        let innermost = running.find("innermost process", |args| {
            args == ["sh", "-c", INNERMOST]
        })?;
        let pids = innermost.status("NSpid")?;
        let depth = pids.split_whitespace().count() - 1;
        ensure!(
            depth == 1 + deeper,
            "its numbers are {pids}, {depth} namespaces down"
        );
    }
    running.end_input();
    running.wait()
}

/// The same step in itself in itself. What would be built as the innermost
/// root is not there yet.
fn three_levels_deep(subject: &Subject) -> Result<()> {
    // The seventh needs control groups.
    let program = &programs()?[5];
    subject.apart(|subject| {
        let outer = subject.sandbox.fs();
        let inner = outer.join("fs");
        rootfs::build(&inner)?;
        add(&outer, program)?;
        add(&inner, program)?;
        subject.sandbox.give_away(&outer)?;
        let mut command = Vec::new();
        for name in ["second", "third"] {
            let run = [STEPS[5], "run", "--hostname", name];
            command.extend(run.map(OsString::from));
        }
        command.extend(["sh", "-c", INNERMOST].map(OsString::from));
        let output = inside(subject, &command, 2)?;
        output.expect_status(7)?;
        output.expect_out("@@ ready\nthird\ncontainer\n")?;
        let said = output.complaints();
        ensure!(
            said.len() == 1 && said[0].starts_with("made fs from "),
            "{output}"
        );
        Ok(())
    })
}

/// Puts a step into a root.
fn add(root: &Path, program: &Path) -> Result<()> {
    let name = program.file_name().context("no name")?;
    rootfs::add_program(root, program, &Path::new("bin").join(name))
}

/// The seven steps, built. A step's suite may have been built without the
/// others.
fn programs() -> Result<Vec<PathBuf>> {
    let own = env::current_exe()?;
    let folder = own.ancestors().nth(2).context("no target folder")?;
    if let Some(cargo) = env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--manifest-path"]);
        build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
        build.args(STEPS.iter().flat_map(|step| ["--package", step]));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        // Where this user has no cargo, there may be the steps all the same.
        let built = build.status().map_or(true, |status| status.success());
        ensure!(built, "the steps cannot be built");
    }
    let programs: Vec<_> = STEPS.iter().map(|step| folder.join(step)).collect();
    match programs.iter().find(|program| !fs::exists(program).unwrap_or(false))
    {
        Some(missing) => {
            Err(skip(format!("{} is not built", missing.display())))
        }
        None => Ok(programs),
    }
}
