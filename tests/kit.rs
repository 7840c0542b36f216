//! The kit's own tests: that it catches what a container could leave behind.

use std::env;
use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{getgid, getuid, sethostname};
use suite::cgroup::{self, Groups};
use suite::harness::guarded;
use suite::property::{PROPERTIES, markdown};
use suite::sandbox::Sandbox;
use suite::terminal::Terminal;
use suite::{Caller, Subject, process};

/// The first argument of a process that ruins a host of its own.
const RUIN: &str = "kit:ruin";

const FORBIDDEN: &str = "namespaces are forbidden here";
const CLOSED: &str = "needs a cgroup that this user may write";

/// What was ruined stays so.
const BRIEF: Duration = Duration::from_millis(500);

type Ruin = fn(&Sandbox, &Groups) -> Result<()>;

const RUINS: [(&str, Ruin, &str); 6] = [
    ("nothing", |_, _| Ok(()), ""),
    ("a mount", leak_mount, "mount left behind"),
    ("a process", leak_process, "process left behind"),
    ("a host name", leak_host_name, "the host name was"),
    ("a file", leak_file, "file left behind"),
    ("a cgroup", leak_group, "cgroup left behind"),
];

fn main() -> ExitCode {
    suite::play_part();
    let mut args = env::args().skip(1);
    if args.next().as_deref() == Some(RUIN) {
        return ruin(&args.next().unwrap_or_default());
    }
    let mut trials: Vec<_> = RUINS
        .into_iter()
        .map(|(what, _, message)| {
            let name = format!("the host is compared after: {what}");
            Trial::ignorable_test(name, move || run(what, message))
        })
        .collect();
    trials.push(Trial::test("the table is whole", the_table_is_whole));
    let name = "a terminal's other end is the kit's alone";
    trials.push(Trial::test(name, other_end));
    let mut arguments = Arguments::from_args();
    // Each looks at the host before and after.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Ruins a host that nobody else is on: a process of its own in namespaces of
/// its own.
fn run(what: &str, message: &str) -> Result<Completion, Failed> {
    let output = Command::new(env::current_exe()?)
        .args([RUIN, what])
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // The test itself may have failed as well: both are to be said.
    let is_caught =
        said.contains(message) && output.status.success() == message.is_empty();
    for reason in [FORBIDDEN, CLOSED] {
        if said.contains(reason) {
            return Ok(Completion::ignored_with(reason));
        }
    }
    if is_caught {
        return Ok(Completion::Completed);
    }
    Err(format!("{message:?} was not said: {}, {said}", output.status).into())
}

fn ruin(what: &str) -> ExitCode {
    let result = RUINS
        .iter()
        .find(|(name, ..)| *name == what)
        .context("no such ruin")
        .and_then(|(_, ruin, _)| {
            let caller = Caller::own();
            own_namespaces(what).context(FORBIDDEN)?;
            prctl::set_child_subreaper(true)?;
            let groups = match caller {
                Caller::Root => Groups::make()?,
                Caller::User => Groups::default(),
            };
            let own = env::current_exe()?;
            let sandbox = Sandbox::without_fs(&own, Caller::own())?;
            let first =
                guarded(&groups, &sandbox, BRIEF, || ruin(&sandbox, &groups));
            // The folder is to be removed.
            let _ = umount(sandbox.dir());
            // Nothing of it fails the next test, if it can be mended.
            if ["a process", "a cgroup"].contains(&what) {
                guarded(&groups, &sandbox, BRIEF, || Ok(()))
                    .context("not mended")?;
            }
            first
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let chain: Vec<_> = error.chain().map(|e| e.to_string()).collect();
            let _ = fs::write("/dev/stderr", chain.join("\n"));
            ExitCode::FAILURE
        }
    }
}

fn own_namespaces(what: &str) -> Result<()> {
    let mut namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    let (uid, gid) = (getuid(), getgid());
    let is_root = Caller::own() == Caller::Root;
    if what == "a cgroup" && !is_root {
        // A user namespace would change nothing about who may write there.
        return Ok(());
    }
    namespaces.set(CloneFlags::CLONE_NEWUSER, !is_root);
    unshare(namespaces)?;
    if !is_root {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    }
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    Ok(mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?)
}

fn leak_mount(sandbox: &Sandbox, _: &Groups) -> Result<()> {
    let kind = Some("tmpfs");
    let flags = MsFlags::empty();
    Ok(mount(None::<&str>, sandbox.dir(), kind, flags, None::<&str>)?)
}

/// An orphan: its parent, a shell, ends first.
fn leak_process(_: &Sandbox, _: &Groups) -> Result<()> {
    Command::new("/bin/sh").args(["-c", "sleep 20 &"]).status()?;
    ensure!(!process::left_behind().is_empty(), "it is not seen");
    bail!("the test fails as well")
}

fn leak_host_name(_: &Sandbox, _: &Groups) -> Result<()> {
    Ok(sethostname("ruined")?)
}

fn leak_file(sandbox: &Sandbox, _: &Groups) -> Result<()> {
    Ok(fs::write(sandbox.dir().join("new"), "")?)
}

fn leak_group(_: &Sandbox, groups: &Groups) -> Result<()> {
    if !cgroup::is_writable(groups, Caller::own()) {
        bail!(CLOSED);
    }
    let tops = groups.directories();
    let top = tops.first().context("no group")?;
    Ok(fs::create_dir(top.join("left"))?)
}

fn other_end() -> Result<(), Failed> {
    let sandbox = Sandbox::without_fs(&env::current_exe()?, Caller::own())?;
    let groups = Groups::default();
    let caller = Caller::own();
    let subject =
        Subject { caller, sandbox: &sandbox, groups: &groups, step: 1 };
    let mut terminal = Terminal::new(&subject)?;
    let script = "ls -l /proc/$$/fd; echo en''d";
    let running =
        terminal.of(subject.beside("/bin/sh", ["-c", script])).spawn()?;
    terminal.shows("end\r\n")?;
    running.wait()?.expect_status(0)?;
    let shown = terminal.all()?;
    if shown.contains("ptmx") || !shown.contains("/dev/pts/") {
        return Err(format!("a program has these files: {shown}").into());
    }
    Ok(())
}

fn the_table_is_whole() -> Result<(), Failed> {
    let mut names: Vec<_> = PROPERTIES.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() != PROPERTIES.len() {
        return Err("two rows have the same name".into());
    }
    for row in PROPERTIES {
        // What one step isolates, the later ones do too.
        if !row.cells.is_sorted_by_key(|cell| *cell == suite::Verdict::Holds) {
            return Err(format!("{} comes and goes", row.name).into());
        }
    }
    let markdown = markdown();
    for (start, number) in
        [("| ", PROPERTIES.len() + 2), ("- **", PROPERTIES.len())]
    {
        let lines = markdown.lines().filter(|line| line.starts_with(start));
        let lines = lines.count();
        if lines != number {
            return Err(format!("{lines} lines start with {start:?}").into());
        }
    }
    Ok(())
}
