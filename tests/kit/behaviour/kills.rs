//! Launchers killed at any moment of their life, and many containers, one
//! after another and at once. From step03 on: only a PID namespace ends with
//! its launcher.

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal::{self, SIGKILL, SIGTERM};

use crate::harness::Test;
use crate::host::Outside;
use crate::process::{self, SOON, settles};
use crate::program::{Output, Subject};
use crate::tests;

/// From step03 on.
pub const UNDER_FIRE: &[Test] = tests![needs container:
    three_hundred_kills_leave_nothing,
    three_hundred_terms_end_launchers_and_leave_nothing,
    a_killed_launcher_harms_no_other,
    a_thousand_containers_do_not_get_slower,
    two_hundred_containers_at_once,
];

/// Longer than any test waits: whoever ends, ends of a signal. The banner
/// shows the script, too, and it shall not be taken for the mark.
const FOR_EVER: &str = "echo '@@ rea''dy'; exec sleep 1000";

/// Ends with 7 when it is told to.
const UNTIL_TOLD: &str = "echo '@@ rea''dy'; read line; exit 7";

/// No test does one thing for longer than that: in User-Mode Linux all takes
/// twenty times as long.
const LONG: Duration = Duration::from_secs(60);

fn three_hundred_kills_leave_nothing(subject: &Subject) -> Result<()> {
    at_any_moment(subject, SIGKILL, 300)
}

fn three_hundred_terms_end_launchers_and_leave_nothing(
    subject: &Subject,
) -> Result<()> {
    at_any_moment(subject, SIGTERM, 300)
}

/// Kills so many launchers, and looks after each whether a process, a mount
/// or a control group stayed.
pub(super) fn at_any_moment(
    subject: &Subject,
    signal: Signal,
    times: u32,
) -> Result<()> {
    let mut random = Random::new()?;
    let seed = random.0;
    let mut killed = Killed::default();
    kill_many(subject, signal, times, &mut random, &mut killed)
        .with_context(|| format!("seed {seed}; so far: {killed}"))?;
    // Otherwise that is no test of any moment. Until there is a child it takes
    // so little time that none may be killed just there.
    let [early, run, child, command, _] = killed.0;
    ensure!(
        times < 300 || early > 0 && run + child > 0 && command > 0,
        "at some stage of its life no launcher was killed: {killed}"
    );
    Ok(())
}

fn kill_many(
    subject: &Subject,
    signal: Signal,
    times: u32,
    random: &mut Random,
    killed: &mut Killed,
) -> Result<()> {
    // Where `/` is shared, a mount shows that is made too early.
    let outside = Outside::new(subject)?;
    let mounts = outside.mounts()?;
    let processes = process::left_behind();
    let groups = subject.groups.directories();
    let mut pace = Pace::measure(subject)?;
    for n in 0..scaled(times, pace.whole * 2) {
        if n > 0 && n % 50 == 0 {
            // Others come and go on this machine.
            pace = Pace::measure(subject)?;
        }
        // Two of three while they are made, one at its end.
        let is_short = n % 3 == 2;
        let (start, from, to) = match is_short {
            false => (subject.sh(FOR_EVER), Duration::ZERO, pace.made * 3 / 2),
            true => (subject.start(["true"]), pace.made / 2, pace.whole),
        };
        let delay = random.between(from, to);
        let kill = || -> Result<Output> {
            let start = match n % 2 {
                0 => outside.of(start),
                _ => start,
            };
            let running = start.limit(SOON).spawn()?;
            thread::sleep(delay);
            running.signal(signal)?;
            let output = running.wait()?;
            ensure!(
                output.status.signal() == Some(signal as i32)
                    || is_short && output.status.code() == Some(0)
                    || signal == SIGTERM && output.status.code() == Some(143),
                "{output}"
            );
            ensure!(
                settles(|| process::left_behind() == processes),
                "it left {:?}",
                process::left_behind()
                    .iter()
                    .filter(|process| !processes.contains(process))
                    .map(|process| process.describe())
                    .collect::<Vec<_>>()
            );
            process::reap();
            let now = outside.mounts()?;
            let mut left = now.lines().filter(|line| !mounts.contains(line));
            ensure!(now == mounts, "it left a mount: {:?}", left.next());
            // What a launcher cannot remove any more the next one removes.
            if signal == SIGKILL && n % 10 == 9 {
                subject.start(["true"]).run()?.expect_status(0)?;
            }
            let now = subject.groups.directories();
            ensure!(
                now == groups || signal == SIGKILL && n % 10 != 9,
                "it left {:?}",
                now.difference(&groups).collect::<Vec<_>>()
            );
            Ok(output)
        };
        let output =
            kill().with_context(|| format!("{signal} {n}, after {delay:?}"))?;
        killed.count(&output);
    }
    subject.start(["true"]).run()?.expect_status(0)?;
    Ok(())
}

/// How far the killed ones had come, by what they had said. Nothing but the
/// usefulness of the test hangs on that.
#[derive(Debug, Default)]
struct Killed([u32; 5]);

impl Killed {
    fn count(&mut self, output: &Output) {
        let banners = output.err().matches("running [").count();
        self.0[match (output.status.code(), banners) {
            (Some(0), _) => 4,
            _ if output.out().contains("@@ ready") => 3,
            (_, banners) => banners.min(2),
        }] += 1;
    }
}

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [early, run, child, command, late] = self.0;
        write!(
            f,
            "{early} before main, {run} in run, {child} in child, {command} \
             while the command ran, {late} too late"
        )
    }
}

/// How long things take here and now.
struct Pace {
    /// Until the command runs.
    made: Duration,
    /// The whole life of a container that does nothing.
    whole: Duration,
}

impl Pace {
    fn measure(subject: &Subject) -> Result<Self> {
        let made = median(3, || {
            let since = Instant::now();
            let start = subject.sh(UNTIL_TOLD).with_input();
            let mut running = start.spawn()?;
            running.wait_for_output("@@ ready")?;
            let made = since.elapsed();
            running.end_input();
            running.wait()?.expect_status(7)?;
            Ok(made)
        })?;
        let whole = median(3, || one_more(subject))?;
        Ok(Self { made, whole })
    }
}

/// How long a container takes that does nothing.
fn one_more(subject: &Subject) -> Result<Duration> {
    let since = Instant::now();
    subject.start(["true"]).run()?.expect_status(0)?;
    Ok(since.elapsed())
}

fn median(
    times: u32,
    mut measure: impl FnMut() -> Result<Duration>,
) -> Result<Duration> {
    let mut taken = Vec::new();
    for _ in 0..times {
        taken.push(measure()?);
    }
    taken.sort();
    Ok(taken[taken.len() / 2])
}

/// As many as that, or fewer where each takes long.
fn scaled(wanted: u32, each: Duration) -> u32 {
    let possible = LONG.as_micros() / each.as_micros().max(1);
    wanted.min(u32::try_from(possible).unwrap_or(wanted).max(30))
}

/// Numerical Recipes' generator: nothing hangs on its quality.
struct Random(u64);

impl Random {
    fn new() -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Self(u64::from(now.subsec_nanos())))
    }

    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let range = to.saturating_sub(from).as_nanos().max(1);
        from + Duration::from_nanos((u128::from(self.next()) % range) as u64)
    }
}

/// Four are made at once, two of them are killed meanwhile, and one that was
/// there before looks on.
fn a_killed_launcher_harms_no_other(subject: &Subject) -> Result<()> {
    let mut random = Random::new()?;
    let seed = random.0;
    let witness = subject.sh(UNTIL_TOLD).with_input();
    let mut witness = witness.spawn()?;
    witness.wait_for_output("@@ ready")?;
    let pace = Pace::measure(subject)?;
    for round in 0..scaled(40, pace.whole * 5) {
        let said = || format!("round {round}, seed {seed}");
        let mut all = Vec::new();
        for _ in 0..4 {
            let start = subject.sh(UNTIL_TOLD).with_input().limit(SOON);
            all.push(start.spawn()?);
        }
        for signal in [SIGKILL, SIGTERM] {
            thread::sleep(random.between(Duration::ZERO, pace.made));
            let n = random.next() as usize % all.len();
            let running = all.swap_remove(n);
            running.signal(signal)?;
            running.wait().with_context(said)?;
        }
        for mut running in all {
            running.wait_for_output("@@ ready").with_context(said)?;
            running.end_input();
            let output = running.wait()?;
            output.expect_status(7).with_context(said)?;
            ensure!(output.complaints().is_empty(), "{}: {output}", said());
        }
    }
    witness.end_input();
    let output = witness.wait()?;
    output.expect_status(7).context("the one before them")?;
    ensure!(output.complaints().is_empty(), "the one before them: {output}");
    subject.start(["true"]).run()?.expect_status(0)?;
    Ok(())
}

/// The median of a hundred is no matter of chance, but a machine may have
/// become busier meanwhile: what has really grown is still so a little later.
fn a_thousand_containers_do_not_get_slower(subject: &Subject) -> Result<()> {
    const ROUND: u32 = 100;
    let hundred = || median(ROUND, || one_more(subject));
    let first = hundred()?;
    let mut last = first;
    for _ in 1..scaled(10 * ROUND, first) / ROUND {
        last = hundred()?;
    }
    let has_grown = |last: Duration| last > first * 3 / 2;
    for _ in 0..5 {
        if !has_grown(last) {
            break;
        }
        last = hundred()?;
    }
    ensure!(
        !has_grown(last),
        "a container took {first:?} at first, and {last:?} after a thousand"
    );
    Ok(())
}

/// All alive at the same time. Then half of them end by themselves, and the
/// others' launchers are killed.
fn two_hundred_containers_at_once(subject: &Subject) -> Result<()> {
    const MANY: usize = 200;
    let groups = subject.groups.directories();
    let mut all = Vec::new();
    for _ in 0..MANY {
        all.push(subject.sh(UNTIL_TOLD).with_input().merged().spawn()?);
    }
    for (n, running) in all.iter().enumerate() {
        let ready = running.wait_for_output("@@ ready");
        ready.with_context(|| format!("container {n}"))?;
    }
    let own = process::own().namespace("pid")?;
    let mut namespaces: BTreeSet<_> = process::left_behind()
        .into_iter()
        .filter_map(|process| process.namespace("pid").ok())
        .collect();
    namespaces.remove(&own);
    let alive = namespaces.len();
    ensure!(alive == MANY, "{alive} PID namespaces, not {MANY}");
    if subject.step == 7 {
        let now = subject.groups.directories();
        let made = now.difference(&groups).count();
        ensure!(made > 0 && made % MANY == 0, "{made} groups for {MANY}");
    }
    for (n, mut running) in all.into_iter().enumerate() {
        let output = match n % 4 {
            0 | 1 => {
                running.end_input();
                running.wait()
            }
            _ => {
                let signal = if n % 4 == 2 { SIGKILL } else { SIGTERM };
                running.signal(signal)?;
                running.wait()
            }
        };
        let expected = [7, 7, 137, 143][n % 4];
        let output = output.with_context(|| format!("container {n}"))?;
        ensure!(
            output.shell_status() == Some(expected),
            "container {n}: expected {expected}, got {output}"
        );
    }
    ensure!(settles(|| process::left_behind().is_empty()), "some stay alive");
    subject.start(["true"]).run()?.expect_status(0)?;
    let now = subject.groups.directories();
    ensure!(
        now == groups,
        "after the next run there still are {:?}",
        now.difference(&groups).collect::<Vec<_>>()
    );
    Ok(())
}
