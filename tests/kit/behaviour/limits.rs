//! Control groups. Step07.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;

use crate::caller::Caller;
use crate::cgroup::hierarchies;
use crate::harness::{Test, skip};
use crate::process::{self, Process, settles};
use crate::program::{Held, Subject, is_probe};
use crate::tests;

/// For step07.
pub const TESTS: &[Test] = tests![needs container:
    the_kernel_knows_the_limits,
    the_limits_have_defaults,
    everything_inside_is_in_the_group,
    cpu_time_is_limited,
    out_of_memory_is_said,
    a_group_is_removed_after_failure,
    a_group_is_removed_after_signals,
    a_group_left_behind_is_swept_up,
    a_lock_of_somebody_else_keeps_nobody_waiting,
];

/// For step07, also where there can be no container.
pub const ANYWHERE: &[Test] = tests![anywhere: nonsense_is_refused];

/// For step07, where a group may be closed to the caller.
pub const AS_USER: &[Test] =
    tests![anywhere as user: no_writable_group_is_explained];

const MIB: u64 = 1024 * 1024;

/// The directory of a process's group that has this controller, and whether
/// it is version 2.
fn group(process: Process, controller: &str) -> Result<(PathBuf, bool)> {
    let hierarchy = hierarchies()?
        .into_iter()
        .find(|hierarchy| hierarchy.controllers.contains(&controller))
        .with_context(|| format!("no {controller} here"))?;
    Ok((hierarchy.group_of(process)?, hierarchy.is_v2))
}

fn read(dir: &Path, file: &str) -> Result<String> {
    let path = dir.join(file);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Limits of a process as the kernel's files say: processes, bytes of memory,
/// hundredths of a processor.
fn limits(process: Process) -> Result<(u64, u64, u64)> {
    let (dir, _) = group(process, "pids")?;
    let pids = read(&dir, "pids.max")?.parse()?;
    let (dir, is_v2) = group(process, "memory")?;
    let memory = if is_v2 {
        let swap = read(&dir, "memory.swap.max");
        ensure!(swap.is_err() || swap? == "0", "swap is not capped");
        read(&dir, "memory.max")?.parse()?
    } else {
        let memory = read(&dir, "memory.limit_in_bytes")?;
        // Memory and swap together. Absent without swap accounting.
        let both = read(&dir, "memory.memsw.limit_in_bytes");
        ensure!(both.is_err() || both? == memory, "swap is not capped");
        memory.parse()?
    };
    let (dir, is_v2) = group(process, "cpu")?;
    let (quota, period) = if is_v2 {
        let max = read(&dir, "cpu.max")?;
        let (quota, period) = max.split_once(' ').context("cpu.max")?;
        (quota.to_owned(), period.to_owned())
    } else {
        (read(&dir, "cpu.cfs_quota_us")?, read(&dir, "cpu.cfs_period_us")?)
    };
    // Without a limit it is `max`, or -1.
    let cpu = quota.parse::<u64>().map_or(Ok(0), |quota| {
        period.parse::<u64>().map(|period| quota * 100 / period)
    })?;
    Ok((pids, memory, cpu))
}

fn the_kernel_knows_the_limits(subject: &Subject) -> Result<()> {
    for (memory, bytes) in
        [("64m", 64 * MIB), ("1g", 1024 * MIB), ("52428800", 50 * MIB)]
    {
        let start = subject.probe("hold", [""; 0]).options([
            "--pids-limit",
            "7",
            "--memory",
            memory,
            "--cpus",
            "0.5",
        ]);
        let held = Held::new(start)?;
        let found = limits(held.process)?;
        ensure!(found == (7, bytes, 50), "with {memory}: {found:?}");
        held.release()?.expect_status(0)?;
    }
    let start = subject.probe("hold", [""; 0]).options(["-m", "70m"]);
    let held = Held::new(start)?;
    ensure!(limits(held.process)?.1 == 70 * MIB, "-m is not --memory");
    held.release()?.expect_status(0)?;
    Ok(())
}

fn the_limits_have_defaults(subject: &Subject) -> Result<()> {
    let held = subject.hold()?;
    let (pids, memory, _) = limits(held.process)?;
    ensure!((pids, memory) == (10, 50 * MIB), "{pids} and {memory}");
    held.release()?.expect_status(0)?;
    Ok(())
}

/// PID 1 included: what it starts is counted from the first process on.
fn everything_inside_is_in_the_group(subject: &Subject) -> Result<()> {
    let start = subject.probe("hold", [""; 0]).options(["--cpus", "1"]);
    let held = Held::new(start)?;
    let init = held.process.parent().context("no parent")?;
    for controller in crate::cgroup::CONTROLLERS {
        let (inside, _) = group(held.process, controller)?;
        ensure!(
            group(init, controller)?.0 == inside,
            "PID 1 is not in the group for {controller}"
        );
        ensure!(
            group(held.launcher.process(), controller)?.0 != inside,
            "the launcher is in the group for {controller}"
        );
    }
    held.release()?.expect_status(0)?;
    Ok(())
}

fn cpu_time_is_limited(subject: &Subject) -> Result<()> {
    let start = subject.probe("spin", ["10"]).options(["--cpus", "0.2"]);
    let running = start.spawn()?;
    let command = process::find("spinning probe", is_probe)?;
    // Clock ticks, user and system: see proc_pid_stat(5).
    let ticks = || -> Result<u64> {
        let stat = command.read("stat")?;
        let after = stat.rsplit_once(')').context("stat")?.1;
        let fields: Vec<_> = after.split_whitespace().collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    };
    let (before, since) = (ticks()?, Instant::now());
    thread::sleep(Duration::from_millis(1000));
    let used = (ticks()? - before) * 10;
    let passed = u64::try_from(since.elapsed().as_millis())?;
    running.signal(Signal::SIGTERM)?;
    running.wait()?.expect_status(143)?;
    ensure!(
        used * 100 <= passed * 35,
        "{used} ms of processor time in {passed} ms, at --cpus 0.2"
    );
    Ok(())
}

fn out_of_memory_is_said(subject: &Subject) -> Result<()> {
    let start = subject.probe("memory", ["100"]).options(["-m", "50m"]);
    let output = start.run()?;
    output.expect_status(137)?;
    let said = "killed: out of memory (limit 50 MiB)";
    ensure!(
        output.complaints().iter().any(|line| line.contains(said)),
        "not said: {output}"
    );
    // Killed for another reason: nothing is said of memory.
    let output = subject.sh("kill -KILL $$").run()?;
    output.expect_status(137)?;
    ensure!(!output.err().contains("memory"), "said without cause: {output}");
    Ok(())
}

/// The host is compared after each test: a group that stays fails it.
fn a_group_is_removed_after_failure(subject: &Subject) -> Result<()> {
    subject.start(["no-such-command"]).run()?.expect_status(127)?;
    subject.start(["/etc/passwd"]).run()?.expect_status(126)?;
    let output =
        subject.command(["--rootfs", "nowhere", "run", "true"]).run()?;
    output.expect_status(125)?;
    let name = "x".repeat(65);
    let output = subject.command(["--hostname", &name, "run", "true"]).run()?;
    output.expect_status(125)?;
    Ok(())
}

fn a_group_is_removed_after_signals(subject: &Subject) -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let running = subject.probe("sleep", ["in-it", "20"]).spawn()?;
        process::find("sleeping probe", is_probe)?;
        running.signal(signal)?;
        running.wait()?.expect_status(128 + signal as i32)?;
    }
    // At any moment of its life.
    for n in 0..20 {
        let running = subject.start(["sleep", "20"]).spawn()?;
        thread::sleep(Duration::from_micros(n * 700));
        running.signal(Signal::SIGTERM)?;
        running.wait().with_context(|| format!("TERM {n}"))?;
    }
    Ok(())
}

fn a_group_left_behind_is_swept_up(subject: &Subject) -> Result<()> {
    let before = subject.groups.directories();
    let held = subject.hold()?;
    let during = subject.groups.directories();
    ensure!(during.len() > before.len(), "no group was made");
    held.launcher.signal(Signal::SIGKILL)?;
    ensure!(settles(|| !held.process.is_alive()), "the command survives");
    // One that is in use stays.
    let other = subject.hold()?;
    subject.start(["true"]).run()?.expect_status(0)?;
    ensure!(
        group(other.process, "pids")?.0.exists()
            && limits(other.process)?.0 == 10,
        "the group of a running container went"
    );
    other.release()?.expect_status(0)?;
    ensure!(
        settles(|| subject.groups.directories() == before),
        "still there: {:?}",
        subject.groups.directories().difference(&before).collect::<Vec<_>>()
    );
    Ok(())
}

/// Whoever may read a folder may lock it: any user those of root's groups.
fn a_lock_of_somebody_else_keeps_nobody_waiting(
    subject: &Subject,
) -> Result<()> {
    let mut locks = Vec::new();
    for group in subject.groups.directories() {
        let lock =
            Flock::lock(File::open(&group)?, FlockArg::LockExclusiveNonblock);
        locks.push(lock.map_err(|(_, errno)| errno)?);
    }
    let start = subject.sh("exit 7").limit(Duration::from_secs(10));
    start.run()?.expect_status(7)?;
    Ok(())
}

/// Before anything is made: not even a program to run is needed.
fn nonsense_is_refused(subject: &Subject) -> Result<()> {
    for (option, values) in [
        ("--pids-limit", &["0", "-1", "x", "", "1.5", "99999999999999999999"]),
        ("--memory", &["0", "-1", "nan", "", "m", "99999999999999999999g"]),
        ("--cpus", &["0", "-1", "nan", "inf", "", "1e400"]),
    ] {
        for value in values {
            let option = format!("{option}={value}");
            let output =
                subject.command([&*option, "run", "echo", "hi"]).run()?;
            output.expect_status(2).context(option)?.expect_no_panic()?;
            ensure!(output.stdout.is_empty(), "it ran: {output}");
        }
    }
    Ok(())
}

fn no_writable_group_is_explained(subject: &Subject) -> Result<()> {
    let given = subject.groups.of(Caller::User);
    if given.is_empty()
        && crate::cgroup::is_writable(subject.groups, Caller::User)
    {
        return Err(skip("this user may write its own group"));
    }
    let output = subject.start(["echo", "hi"]).without_groups().run()?;
    output.expect_failure(125, "cgroup")?;
    let hint = output.complaints().into_iter().nth(1).context("no hint")?;
    ensure!(
        hint.contains("systemd-run --user --scope -p Delegate=yes")
            || hint.contains("root")
            || hint.contains("sudo"),
        "no remedy: {hint}"
    );
    Ok(())
}
