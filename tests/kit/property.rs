//! What each step isolates: the one table that says so, and how it is seen.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::host::Outside;
use crate::process::{self, Process, SOON};
use crate::program::{Held, Running, Start, Subject, is_probe};
use crate::start::{Given, LEAKED};

/// Whether a container keeps a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Holds,
    /// It does not.
    Leaks,
}

use Verdict::{Holds as H, Leaks as L};

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Holds => "holds",
            Self::Leaks => "leaks",
        })
    }
}

/// A verdict and what was seen.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// What was seen, for the reader of a failed check.
    pub seen: String,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// A stable name.
    pub name: &'static str,
    /// A sentence for readers.
    pub sentence: &'static str,
    /// What is true of step01 to step07.
    pub cells: [Verdict; 7],
    /// Looks whether it holds. An error means that it could not be seen.
    pub probe: fn(&Subject) -> Result<Finding>,
}

impl Property {
    /// What is true of that step, 1 to 7.
    pub fn of(&self, step: usize) -> Verdict {
        self.cells[step - 1]
    }
}

const fn row(
    cells: [Verdict; 7],
    probe: fn(&Subject) -> Result<Finding>,
    name: &'static str,
    sentence: &'static str,
) -> Property {
    Property { name, sentence, cells, probe }
}

/// What each step isolates. Both directions are asserted: a leak that turns
/// out to hold fails too, so the table is never wrong.
#[rustfmt::skip]
pub const PROPERTIES: [Property; 22] = [
    // 1  2  3  4  5  6  7
    row([H, H, H, H, H, H, H], exit_status, "exit status",
        "The command's exit status comes out: N, or 128+N for signal N."),
    row([H, H, H, H, H, H, H], arguments, "arguments",
        "The command gets its arguments as they were typed, byte for byte."),
    row([H, H, H, H, H, H, H], streams, "streams",
        "3 MB go in at stdin and come out at stdout, intact."),
    row([H, H, H, H, H, H, H], signals_at_start, "signals at the start",
        "The command starts with no signal blocked and SIGPIPE not ignored."),
    row([L, H, H, H, H, H, H], host_name, "own host name",
        "The container names itself, and the host does not notice."),
    row([L, L, H, H, H, H, H], pids, "own PIDs",
        "The container counts its processes from 1."),
    row([L, L, H, H, H, H, H], killed_launcher, "ends with its launcher",
        "A launcher killed with SIGKILL leaves no process behind."),
    row([L, L, H, H, H, H, H], background, "ends with its command",
        "What the command left in the background ends with it."),
    row([H, H, H, H, H, H, H], terminated, "TERM arrives",
        "SIGTERM for the launcher reaches the command: status 143."),
    row([L, L, L, H, H, H, H], files, "own files",
        "No path leads to the host's files."),
    row([L, L, L, H, H, H, H], environment, "own environment",
        "The host's environment variables stay outside."),
    row([L, L, L, H, H, H, H], new_privileges, "no new privileges",
        "No set-user-ID program makes anybody more than they are."),
    row([L, L, L, L, H, H, H], proc, "own /proc",
        "/proc shows the container's processes, and only those."),
    row([L, L, L, L, H, H, H], mounts, "own mount table",
        "What the container mounts shows nowhere on the host."),
    row([L, L, L, L, L, H, H], escape, "no escape by chroot",
        "Root in the container cannot climb out with a second chroot."),
    row([L, L, L, L, L, H, H], descriptor, "no leaked directory",
        "A directory that the caller left open is no way out."),
    row([L, L, L, L, L, H, H], devices, "own /dev",
        "/dev has what programs need, and none of the host's disks."),
    row([L, L, L, L, L, L, H], processes_limited, "at most ten processes",
        "The eleventh process is refused."),
    row([L, L, L, L, L, L, H], memory_limited, "at most 50 MB",
        "Whoever takes more than 50 MB is stopped."),
    row([L, L, L, L, L, L, H], cgroup_hidden, "own cgroup tree",
        "The container does not see where its control group stands."),
    row([L, L, L, L, L, L, L], ipc, "own System V IPC",
        "Message queues and shared memory are the container's own."),
    row([L, L, L, L, L, L, L], network, "own network",
        "Interfaces, addresses and ports are the container's own."),
];

/// The table as Markdown, for the book, and below it what each row means.
///
/// A cell is a sign, so that seven of them fit on a phone, and a word for
/// those who have the page read to them.
pub fn markdown() -> String {
    let mut text = String::from(
        "| | [1](01-exec.md) | [2](02-uts.md) | [3](03-pid.md) \
         | [4](04-chroot.md) | [5](05-proc.md) | [6](06-pivot-root.md) \
         | [7](07-cgroups.md) |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in PROPERTIES {
        text += &format!("| {} |", row.name);
        for cell in row.cells {
            let sign = if cell == H { '✓' } else { '✗' };
            text += &format!(
                " <span class=\"{cell}\" role=\"img\" \
                 aria-label=\"{cell}\">{sign}</span> |"
            );
        }
        text.push('\n');
    }
    text.push('\n');
    for row in PROPERTIES {
        text += &format!("- **{}**: {}\n", row.name, row.sentence);
    }
    text
}

/// Holds when `holds` is true.
fn judge(holds: bool, seen: impl Into<String>) -> Result<Finding> {
    let verdict = if holds { H } else { L };
    Ok(Finding { verdict, seen: seen.into() })
}

fn exit_status(subject: &Subject) -> Result<Finding> {
    for (script, wanted) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        // Nothing that PID 1 sends itself ends it, nor does TERM from outside.
        ("[ $$ = 1 ] && exit 143; kill -TERM $$", 143),
    ] {
        let output = subject.sh(script).run()?;
        if output.shell_status() != Some(wanted) {
            let seen = format!("`{script}` gave {}", output.ended());
            return judge(false, seen);
        }
    }
    let (running, shell) = waiting_shell(|script| subject.sh(script))?;
    shell.signal(Signal::SIGKILL)?;
    let output = running.wait()?;
    judge(
        output.shell_status() == Some(137),
        match output.shell_status() {
            Some(137) => "0, 7, 255, 143 and 137 came out".to_owned(),
            _ => format!("a command that was killed gave {}", output.ended()),
        },
    )
}

/// A shell in a container that waits for a line. Unlike a Rust program it
/// leaves its signals as they were.
fn waiting_shell(
    start: impl FnOnce(&str) -> Start,
) -> Result<(Running, Process)> {
    // A banner may show the script.
    let script = "echo @@ rea''dy; read line";
    let running = start(script).with_input().spawn()?;
    running.wait_for_output("@@ ready")?;
    let shell = running.find("shell in the container", |args| {
        args == ["/bin/sh", "-c", script]
    })?;
    Ok((running, shell))
}

fn arguments(subject: &Subject) -> Result<Finding> {
    let args: [&[u8]; 10] = [
        b"",
        b"-x",
        b"--",
        b"--help",
        b"--rootfs",
        b"two words",
        b"$HOME `id` \\ \"'",
        b"new\nline",
        b"\xff\xfe",
        b"",
    ];
    let wanted: Vec<String> = args
        .iter()
        .map(|arg| arg.iter().map(|b| format!("{b:02x}")).collect())
        .map(|hex: String| format!("[{hex}]"))
        .collect();
    let output = subject.probe("args", args.map(OsStr::from_bytes)).run()?;
    let findings = output.findings();
    let got = findings.all("arg");
    if got == wanted {
        return judge(true, "every byte arrived");
    }
    let odd =
        args.iter().zip(&wanted).enumerate().find_map(|(n, (arg, wanted))| {
            let got = got.get(n);
            (got != Some(wanted)).then(|| {
                format!("{:?} arrived as {got:?}", OsStr::from_bytes(arg))
            })
        });
    let odd = odd.unwrap_or_else(|| format!("{} arrived", got.len()));
    judge(false, format!("{odd}; {output}"))
}

fn streams(subject: &Subject) -> Result<Finding> {
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let output =
        subject.sh("cat; echo to stderr >&2").input(bytes.clone()).run()?;
    // Banners may stand before and after.
    let is_intact =
        output.stdout.windows(bytes.len()).any(|found| found == bytes);
    let is_told = output.err().contains("to stderr");
    judge(
        is_intact && is_told,
        match is_intact {
            true if is_told => "all of it, and stderr apart".to_owned(),
            true => "what went to stderr did not come out there".to_owned(),
            false => format!(
                "{} bytes went in, {} came out",
                bytes.len(),
                output.stdout.len()
            ),
        },
    )
}

fn signals_at_start(subject: &Subject) -> Result<Finding> {
    let (mut running, shell) = waiting_shell(|script| {
        subject
            .sh(script)
            .ignoring("PIPE")
            .given(Given::Blocked(Signal::SIGTERM))
            .given(Given::Blocked(Signal::SIGUSR1))
    })?;
    let bits = |key| -> Result<u64> {
        Ok(u64::from_str_radix(&shell.status(key)?, 16)?)
    };
    let (blocked, ignored) = (bits("SigBlk")?, bits("SigIgn")?);
    running.end_input();
    running.wait()?;
    let blocked: Vec<_> = Signal::iterator()
        .filter(|signal| blocked & (1 << (*signal as u32 - 1)) != 0)
        .map(Signal::as_str)
        .collect();
    let is_ignored = ignored & (1 << (Signal::SIGPIPE as u32 - 1)) != 0;
    let mut seen = Vec::new();
    if !blocked.is_empty() {
        seen.push(format!("{} blocked", blocked.join(", ")));
    }
    if is_ignored {
        seen.push("SIGPIPE ignored".to_owned());
    }
    judge(seen.is_empty(), seen.join("; "))
}

fn host_name(subject: &Subject) -> Result<Finding> {
    let mut outside = Outside::new(subject)?;
    let before = outside.host_name()?;
    let start = subject.probe("sethostname", ["suite-inside"]);
    let held = Held::new(outside.of(start))?;
    let inside = held.says.get("hostname")?.to_owned();
    let is_own =
        held.process.namespace("uts")? != outside.process().namespace("uts")?;
    let after = outside.host_name()?;
    held.release()?;
    judge(
        is_own && after == before,
        format!("inside {inside:?}, outside {before:?} before, {after:?} now"),
    )
}

fn pids(subject: &Subject) -> Result<Finding> {
    let held = subject.hold()?;
    let pid = held.says.get("pid")?.to_owned();
    let is_own = is_own_namespace(held, "pid")?;
    // Threads count, and a runtime has many.
    let is_small = pid.parse::<u32>()? < 100;
    judge(is_own.0 && is_small, format!("the command is {pid}; {}", is_own.1))
}

/// A container with a probe that sleeps in it.
fn sleeping(subject: &Subject) -> Result<(Running, Process)> {
    let launcher = subject.probe("sleep", ["in-it", "30"]).spawn()?;
    let command = launcher.find("sleeping probe", is_probe)?;
    Ok((launcher, command))
}

/// How long something may take to end: where it will not, or where others
/// watch the clock, that long is lost.
fn patience(subject: &Subject) -> Duration {
    match subject.step {
        3.. if !subject.sandbox.is_foreign() => SOON,
        _ => Duration::from_secs(1),
    }
}

/// Processes that are there after a time in which they could have ended, as a
/// sentence; an empty one when there is none.
fn survivors(subject: &Subject) -> String {
    let _ = process::wait_for("end", patience(subject), || {
        Ok(process::left_behind().is_empty().then_some(()))
    });
    let left = process::left_behind();
    let some: Vec<String> = left
        .iter()
        .take(3)
        .map(|process| {
            let here = subject.sandbox.dir().to_string_lossy();
            process.describe().replace(&*here, ".").chars().take(50).collect()
        })
        .collect();
    match left.len() {
        0 => String::new(),
        n => format!("{n} still running: {}", some.join(", ")),
    }
}

fn killed_launcher(subject: &Subject) -> Result<Finding> {
    let (launcher, _) = sleeping(subject)?;
    launcher.signal(Signal::SIGKILL)?;
    launcher.wait()?;
    let left = survivors(subject);
    // A control group can only be removed by somebody who is still there:
    // the next run.
    let _ = subject.start(["true"]).run();
    judge(left.is_empty(), left)
}

fn background(subject: &Subject) -> Result<Finding> {
    let output = subject.probe("leave-behind", ["30"]).run();
    let left = survivors(subject);
    let output = output?;
    output.findings().get("left")?;
    judge(left.is_empty(), left)
}

fn terminated(subject: &Subject) -> Result<Finding> {
    let (launcher, command) = sleeping(subject)?;
    launcher.signal(Signal::SIGTERM)?;
    let limit = patience(subject);
    let _ = process::wait_for("end", limit, || {
        Ok((!command.is_alive()).then_some(()))
    });
    if command.is_alive() {
        let seen = format!("the command was still running {limit:?} later");
        return judge(false, seen);
    }
    let output = launcher.wait()?;
    judge(
        output.shell_status() == Some(143),
        format!("the command ended, the launcher with {}", output.ended()),
    )
}

/// Lets the probe try to read the file that stands beside `fs`.
fn secret(
    subject: &Subject,
    action: &str,
    redirection: &str,
    given: Option<Given>,
) -> Result<Finding> {
    let mut start =
        subject.probe_from(redirection, action, [subject.sandbox.secret()]);
    if let Some(given) = given {
        start = start.given(given);
    }
    let output = start.run()?;
    let findings = output.findings();
    let secret = subject.sandbox.secret_text();
    let mut read = findings.all("read").iter();
    if let Some(read) = read.find(|text| text.contains(&secret)) {
        let way = read.replace(&secret, "");
        return judge(false, format!("a file of the host was read{way}"));
    }
    let tried = findings.last("unread").or(findings.last("error"));
    match tried {
        Some(tried) => judge(true, tried),
        // The shell found no such descriptor.
        None if !redirection.is_empty() && findings.last("began").is_some() => {
            judge(true, "it is closed")
        }
        None => bail!("the probe did not run: {output}"),
    }
}

fn files(subject: &Subject) -> Result<Finding> {
    secret(subject, "read", "", None)
}

fn escape(subject: &Subject) -> Result<Finding> {
    secret(subject, "escape", "", None)
}

fn descriptor(subject: &Subject) -> Result<Finding> {
    let redirection = format!("<&{LEAKED}");
    secret(subject, "escape-descriptor", &redirection, Some(Given::LeakedRoot))
}

fn environment(subject: &Subject) -> Result<Finding> {
    let output = subject
        .probe("environment", [""; 0])
        .variable("SUITE_SECRET", "of the host")
        .run()?;
    let findings = output.findings();
    findings.get("environment")?;
    let inside = findings.all("variable");
    let leaked = inside
        .iter()
        .chain(findings.all("of-pid-1"))
        .find(|line| line.contains("SUITE_SECRET"));
    judge(
        leaked.is_none(),
        match leaked {
            Some(line) => format!("a variable of the caller: {line}"),
            None => inside.join(" "),
        },
    )
}

/// What the kernel says of the command, see proc(5).
fn new_privileges(subject: &Subject) -> Result<Finding> {
    let held = subject.hold()?;
    let is_set = held.process.status("NoNewPrivs")? == "1";
    held.release()?;
    judge(is_set, format!("NoNewPrivs is {}", u8::from(is_set)))
}

fn proc(subject: &Subject) -> Result<Finding> {
    let held = subject.hold()?;
    let shown = held.says.get("processes")?.to_owned();
    let own = held.process.namespace("pid")?;
    let host = process::own().namespace("pid")?;
    let mut inside = Vec::new();
    for process in process::all() {
        if process.namespace("pid").is_ok_and(|found| found == own) {
            // One that has ended meanwhile is none.
            let Ok(numbers) = process.status("NSpid") else { continue };
            let last = numbers.split_whitespace().last().context("NSpid")?;
            inside.push(last.parse::<u32>()?);
        }
    }
    inside.sort_unstable();
    held.release()?;
    let is_own = own != host;
    let number = shown.split(',').count();
    judge(
        is_own && shown == format!("{inside:?}"),
        match shown.as_str() {
            "[]" => "there is none".to_owned(),
            _ if !is_own => format!("/proc shows the host's {number}"),
            _ if number > 20 => {
                format!("/proc shows {number}, the container has {inside:?}")
            }
            _ => format!("/proc shows {shown}, the container has {inside:?}"),
        },
    )
}

fn mounts(subject: &Subject) -> Result<Finding> {
    let outside = Outside::new(subject)?;
    let before = outside.mounts()?;
    let start = subject.probe("mount-and-hold", [""; 0]);
    let held = Held::new(outside.of(start))?;
    let during = outside.mounts()?;
    let is_own =
        held.process.namespace("mnt")? != outside.process().namespace("mnt")?;
    held.release()?;
    let appeared: Vec<_> = during
        .lines()
        .filter(|line| !before.contains(*line))
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    judge(
        is_own && before == during,
        match is_own {
            true => format!("shown on the host: {}", appeared.join(", ")),
            false => "the mount table is the host's".to_owned(),
        },
    )
}

fn devices(subject: &Subject) -> Result<Finding> {
    let output = subject.probe("devices", [""; 0]).run()?;
    let findings = output.findings();
    let host = fs::metadata("/dev")?;
    let host = format!("{}:{}", host.dev(), host.ino());
    let disks = findings.get("disks")?;
    let broken = findings.get("broken")?;
    let is_host = findings.last("identity") == Some(&host);
    judge(
        !is_host && disks.is_empty() && broken.is_empty(),
        match (is_host, disks, broken) {
            (true, "", _) => "it is the host's /dev".to_owned(),
            (true, ..) => format!("it is the host's /dev, with disks: {disks}"),
            (_, "", "") => "what is needed is there and works".to_owned(),
            (_, "", _) => format!("broken or missing: {broken}"),
            (_, _, "") => format!("disks: {disks}"),
            _ => format!("disks: {disks}; broken or missing: {broken}"),
        },
    )
}

fn processes_limited(subject: &Subject) -> Result<Finding> {
    let output = subject.probe("spawn", ["20"]).run()?;
    let findings = output.findings();
    let started: u32 = findings.get("started")?.parse()?;
    let because = findings.last("because").unwrap_or_default();
    judge(
        (1..=10).contains(&started) && because.contains("os error 11"),
        match because {
            "" => format!("{started} of 20 started"),
            _ => format!("{started} of 20 started, then: {because}"),
        },
    )
}

fn memory_limited(subject: &Subject) -> Result<Finding> {
    let output = subject.probe("memory", ["100"]).run()?;
    let findings = output.findings();
    let touched: u32 = findings.get("touched")?.parse()?;
    judge(
        (1..55).contains(&touched) && findings.last("unlimited").is_none(),
        format!("{touched} of 100 MiB touched, then {}", output.ended()),
    )
}

/// Compares a namespace of the probe with ours.
fn is_own_namespace(held: Held, kind: &str) -> Result<(bool, String)> {
    let inside = held.process.namespace(kind)?;
    let outside = process::own().namespace(kind)?;
    held.release()?;
    let is_own = inside != outside;
    let seen = match is_own {
        true => format!("inside {inside}, outside {outside}"),
        false => format!("{inside}, which is the host's"),
    };
    Ok((is_own, seen))
}

fn namespace(subject: &Subject, kind: &str) -> Result<Finding> {
    let (is_own, seen) = is_own_namespace(subject.hold()?, kind)?;
    judge(is_own, seen)
}

fn cgroup_hidden(subject: &Subject) -> Result<Finding> {
    namespace(subject, "cgroup")
}

fn ipc(subject: &Subject) -> Result<Finding> {
    namespace(subject, "ipc")
}

fn network(subject: &Subject) -> Result<Finding> {
    namespace(subject, "net")
}
