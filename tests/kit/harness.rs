//! Running the tests of one step: each as root and as an ordinary user, one
//! after another, the host compared before and after.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fmt;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::sethostname;

use crate::behaviour::{SINCE, UNDER_FIRE};
use crate::caller::Caller;
use crate::cgroup::{self, Groups};
use crate::host;
use crate::process::{self, SOON};
use crate::program::{Start, Subject};
use crate::property::{PROPERTIES, Property, Verdict};
use crate::results::Results;
use crate::sandbox::Sandbox;
use crate::start::Given;
use crate::transcript::HOST_NAME;
use crate::{play_part, probe};

/// Names another program to run the property rows against.
const REPLACEMENT: &str = "STEP_PROGRAM";

/// Names the tests that may be skipped although CI is set: patterns with `*`,
/// separated by semicolons, for `root: own PIDs` or, with the step in front,
/// `step03-pid root: own PIDs`.
const ALLOWED_SKIPS: &str = "SUITE_ALLOW_SKIPS";

/// Set, it runs the tests that take long, and none of the others.
const FIRE: &str = "SUITE_FIRE";

/// Names the caller whose tests a process is to run.
const HALF: &str = "SUITE_CALLER";

/// A step, as its test file introduces it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// 1 to 7.
    pub number: usize,
    /// Its package and program.
    pub name: &'static str,
    /// The built program.
    pub program: &'static str,
}

/// A test of a step beside the table.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// Its name: the function's.
    pub name: &'static str,
    /// What is done.
    pub run: fn(&Subject) -> Result<()>,
    /// Whether it needs a container, and so is skipped where this caller can
    /// have none.
    pub needs_container: bool,
    /// The only caller that it is about, where it is about one.
    pub only: Option<Caller>,
    /// What it leaves on the host, on purpose: what the guard says of it has
    /// to begin with that.
    pub leaves: &'static [&'static str],
}

impl Test {
    /// A test of a program that was patched: its name is the patch's.
    pub const fn of_patch(
        name: &'static str,
        run: fn(&Subject) -> Result<()>,
    ) -> Self {
        Self { name, run, needs_container: true, only: None, leaves: &[] }
    }

    /// For one caller only.
    pub const fn only(self, caller: Caller) -> Self {
        Self { only: Some(caller), ..self }
    }

    /// With something left behind that the guard cleans up: `"process"` or
    /// `"cgroup"`. When nothing of the kind is left, the test fails.
    pub const fn leaves(self, what: &'static [&'static str]) -> Self {
        Self { leaves: what, ..self }
    }
}

/// A list of tests, after what they need and whom they are for:
/// `tests![needs container: one, two; as root: three; as user: four]`. What
/// `anywhere` or `anywhere as user` introduces needs no container.
#[macro_export]
macro_rules! tests {
    (@ [$($done:tt)*] needs container: $($name:ident),* $(,)?
     $(; $($rest:tt)*)?) => {
        $crate::tests!(@ [$($done)* $((true, None, $name))*] $($($rest)*)?)
    };
    (@ [$($done:tt)*] as root: $($name:ident),* $(,)? $(; $($rest:tt)*)?) => {
        $crate::tests!(
            @ [$($done)* $((true, Some($crate::Caller::Root), $name))*]
            $($($rest)*)?
        )
    };
    (@ [$($done:tt)*] as user: $($name:ident),* $(,)? $(; $($rest:tt)*)?) => {
        $crate::tests!(
            @ [$($done)* $((true, Some($crate::Caller::User), $name))*]
            $($($rest)*)?
        )
    };
    (@ [$($done:tt)*] anywhere as user: $($name:ident),* $(,)?
     $(; $($rest:tt)*)?) => {
        $crate::tests!(
            @ [$($done)* $((false, Some($crate::Caller::User), $name))*]
            $($($rest)*)?
        )
    };
    (@ [$($done:tt)*] anywhere: $($name:ident),* $(,)? $(; $($rest:tt)*)?) => {
        $crate::tests!(@ [$($done)* $((false, None, $name))*] $($($rest)*)?)
    };
    (@ [$(($needs:expr, $only:expr, $name:ident))*]) => {
        &[$($crate::harness::Test {
            name: stringify!($name),
            run: $name,
            needs_container: $needs,
            only: $only,
            leaves: &[],
        }),*]
    };
    ($($list:tt)+) => {
        $crate::tests!(@ [] $($list)+)
    };
}

/// Why a test could not run here.
#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Skip {}

/// The error that makes a test count as skipped.
pub fn skip(reason: impl Into<String>) -> anyhow::Error {
    Skip(reason.into()).into()
}

/// What the tests of one process share: the host is theirs.
pub struct Session {
    groups: Mutex<Option<Arc<Groups>>>,
    skipped: Mutex<BTreeMap<String, usize>>,
    results: Results,
}

impl Session {
    /// Makes the host one of our own, where we may.
    pub fn new() -> Result<Arc<Self>> {
        host::enter()?;
        if Caller::own() == Caller::Root {
            // Ours may be `container`, when we are in one.
            sethostname(HOST_NAME)?;
        }
        Ok(Arc::new(Self {
            groups: Mutex::default(),
            skipped: Mutex::default(),
            results: Results::new()?,
        }))
    }

    fn groups(&self) -> Result<Arc<Groups>> {
        let mut groups = self.groups.lock().expect("no test holds it");
        if groups.is_none() {
            *groups = Some(Arc::new(Groups::make()?));
        }
        groups.clone().context("just made")
    }

    /// Runs them, one after another.
    pub fn run(&self, trials: Vec<Trial>) -> ExitCode {
        let mut arguments = Arguments::from_args();
        // The host is compared before and after each.
        arguments.test_threads = Some(1);
        let conclusion = libtest_mimic::run(&arguments, trials);
        for (reason, n) in &*self.skipped.lock().expect("the tests are over") {
            let _ = writeln!(io::stderr(), "skipped {n}: {reason}");
        }
        conclusion.exit_code()
    }
}

/// A program under test, and a folder for each of its callers.
pub struct World {
    step: Step,
    program: PathBuf,
    session: Arc<Session>,
    places: [OnceLock<Place>; 2],
}

/// One caller's folder, or why there is no container for it.
struct Place {
    sandbox: Sandbox,
    missing: Option<String>,
}

impl World {
    /// Introduces that program as that step.
    pub fn new(
        session: &Arc<Session>,
        step: Step,
        program: &Path,
    ) -> Result<Arc<Self>> {
        let program = program.canonicalize().with_context(|| {
            format!("cannot find the program {}", program.display())
        })?;
        if !program.is_file() {
            bail!("{} is no program", program.display());
        }
        Ok(Arc::new(Self {
            step,
            program,
            session: Arc::clone(session),
            places: [OnceLock::new(), OnceLock::new()],
        }))
    }

    /// A test by that caller, if it is for that one.
    pub fn trial(
        self: &Arc<Self>,
        caller: Caller,
        test: &Test,
    ) -> Option<Trial> {
        let name = format!("{caller}: {}", test.name.replace('_', " "));
        test.only.is_none_or(|only| only == caller).then(|| {
            let needs = test.needs_container;
            trial(self, caller, name, needs, test.leaves, test.run)
        })
    }

    fn place(&self, caller: Caller) -> Result<&Place> {
        let place = &self.places[caller as usize];
        if place.get().is_none() {
            let made = self.make_place(caller)?;
            let _ = place.set(made);
        }
        place.get().context("just made")
    }

    fn make_place(&self, caller: Caller) -> Result<Place> {
        let sandbox = Sandbox::new(&self.program, caller)?;
        let groups = self.session.groups()?;
        let subject = self.subject(caller, &sandbox, &groups);
        let mut missing = None;
        if self.step.number >= 2 && caller == Caller::User {
            missing = user_namespace_missing(&subject)?;
        }
        if self.step.number == 7
            && missing.is_none()
            && !cgroup::is_writable(&groups, caller)
        {
            missing =
                Some(format!("needs a cgroup that this {caller} may write"));
        }
        Ok(Place { sandbox, missing })
    }

    fn subject<'a>(
        &self,
        caller: Caller,
        sandbox: &'a Sandbox,
        groups: &'a Groups,
    ) -> Subject<'a> {
        Subject { caller, sandbox, groups, step: self.step.number }
    }

    /// Runs one test and compares the host before and after, also when the
    /// test failed.
    fn run(
        &self,
        caller: Caller,
        needs_container: bool,
        leaves: &[&str],
        test: &dyn Fn(&Subject) -> Result<()>,
    ) -> Result<()> {
        if !caller.is_possible() {
            return Err(skip("the suite does not run as root"));
        }
        let place = self.place(caller)?;
        if let (true, Some(missing)) = (needs_container, &place.missing) {
            return Err(skip(missing));
        }
        let groups = self.session.groups()?;
        let subject = self.subject(caller, &place.sandbox, &groups);
        // Where something stays, that long is lost.
        let patience = match leaves {
            [] => SOON,
            _ => Duration::from_secs(2),
        };
        guarded_but(&groups, &place.sandbox, patience, leaves, || {
            test(&subject)
        })
    }

    fn finish(
        &self,
        name: &str,
        began: Instant,
        result: Result<()>,
    ) -> Result<Completion, Failed> {
        let took = began.elapsed();
        let record = |outcome: &str, why: &str| {
            let results = &self.session.results;
            results.record(self.step.name, name, outcome, took, why);
        };
        let Err(error) = result else {
            record("passed", "");
            return Ok(Completion::Completed);
        };
        let Some(Skip(reason)) = error.downcast_ref() else {
            let chain: Vec<_> = error.chain().map(|e| e.to_string()).collect();
            let chain = chain.join("\n");
            record("failed", &chain);
            return Err(chain.into());
        };
        record("skipped", reason);
        let allowed = env::var(ALLOWED_SKIPS).unwrap_or_default();
        if env::var_os("CI").is_some()
            && !allowed.split(';').map(str::trim).any(|pattern| {
                matches(pattern, name)
                    || matches(pattern, &format!("{} {name}", self.step.name))
            })
        {
            return Err(format!(
                "skipped ({reason}), which {ALLOWED_SKIPS} does not allow"
            )
            .into());
        }
        let mut skipped =
            self.session.skipped.lock().expect("no test holds it");
        *skipped.entry(reason.clone()).or_default() += 1;
        Ok(Completion::ignored_with(reason))
    }
}

/// Runs `test`, and fails also when the host is not, `patience` afterwards, as
/// it was.
pub fn guarded(
    groups: &Groups,
    sandbox: &Sandbox,
    patience: Duration,
    test: impl FnOnce() -> Result<()>,
) -> Result<()> {
    guarded_but(groups, sandbox, patience, &[], test)
}

/// The same where something is to be left behind: each change has to begin
/// with one of these, and each of these has to come.
fn guarded_but(
    groups: &Groups,
    sandbox: &Sandbox,
    patience: Duration,
    leaves: &[&str],
    test: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (result, mut changes) = host::guard(groups, &[sandbox], patience, test);
    if result.is_ok() {
        for what in leaves {
            ensure!(
                changes.iter().any(|change| change.starts_with(what)),
                "no {what} was left behind: {changes:?}"
            );
        }
    }
    changes.retain(|change| !leaves.iter().any(|it| change.starts_with(it)));
    if changes.is_empty() {
        return result;
    }
    let changes = changes.join("\n  ");
    let changed = format!("the host is not as it was:\n  {changes}");
    match result {
        Ok(()) => Err(anyhow!(changed)),
        Err(error) => Err(error.context(changed)),
    }
}

/// Why an ordinary user can have no user namespace here, tried out.
fn user_namespace_missing(subject: &Subject) -> Result<Option<String>> {
    let sandbox = subject.sandbox;
    let args = [probe::PART, "can-have-user-namespace"];
    let mut start = Start::of(&sandbox.probe(), args, sandbox.dir());
    if subject.caller.is_another() {
        let (uid, gid) = subject.caller.ids();
        start = start.given(Given::Ids(uid, gid));
    }
    let output = start.run()?;
    let findings = output.findings();
    if findings.last("user").is_some() {
        return Ok(None);
    }
    let error = findings.last("error").map(str::to_owned);
    let error = error.unwrap_or_else(|| output.to_string());
    Ok(Some(format!("user namespaces are forbidden here: {error}")))
}

/// One row of the table against one step, in both directions.
fn check(property: &Property, subject: &Subject) -> Result<()> {
    let expected = property.of(subject.step);
    // What the caller has given up already, no step can leak.
    if property.name == "no new privileges"
        && process::own().status("NoNewPrivs")? == "1"
    {
        return Err(skip("we may have no new privileges ourselves"));
    }
    let found = (property.probe)(subject)?;
    if found.verdict == Verdict::Leaks {
        // What leaked may be a process.
        process::sweep();
    }
    ensure!(
        found.verdict == expected,
        "{} The table says that it {expected} in step {:02}, and it {}. {}\n\
         What was seen: {}",
        property.sentence,
        subject.step,
        found.verdict,
        match found.verdict {
            Verdict::Leaks => "The step does not do its work.",
            Verdict::Holds => "The table is out of date.",
        },
        found.seen
    );
    Ok(())
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|at| rest.is_char_boundary(*at))
                .any(|at| matches(tail, &rest[at..]))
        }),
    }
}

/// Runs a step's suite: the rows of the table, what is asked of it and of
/// later steps, and its own transcripts.
pub fn main(step: Step, transcripts: &'static [Test]) -> ExitCode {
    play_part();
    match in_halves() {
        Ok(None) => {}
        Ok(Some(status)) => return status,
        Err(error) => return fail(&error),
    }
    let replacement = env::var_os(REPLACEMENT).map(PathBuf::from);
    let program = replacement.clone().unwrap_or_else(|| step.program.into());
    let world =
        Session::new().and_then(|session| World::new(&session, step, &program));
    let world = match world {
        Ok(world) => world,
        Err(error) => return fail(&error),
    };
    let mut trials = Vec::new();
    let half = env::var(HALF).ok();
    let is_wanted = |caller: &Caller| {
        half.as_ref().is_none_or(|half| *half == caller.to_string())
    };
    let under_fire = env::var_os(FIRE).is_some();
    for caller in Caller::ALL.into_iter().filter(is_wanted) {
        if under_fire {
            let since = UNDER_FIRE.iter();
            let tests = since
                .filter(|(first, _)| *first <= step.number)
                .flat_map(|(_, tests)| *tests);
            trials.extend(tests.filter_map(|test| world.trial(caller, test)));
            continue;
        }
        for property in &PROPERTIES {
            let name = format!("{caller}: {}", property.name);
            trials.push(trial(&world, caller, name, true, &[], |subject| {
                check(property, subject)
            }));
        }
        // Another program keeps the contract and no more.
        let since = SINCE.iter().filter(|(first, _)| *first <= step.number);
        let tests = since
            .flat_map(|(_, tests)| *tests)
            .chain(transcripts)
            .filter(|_| replacement.is_none());
        trials.extend(tests.filter_map(|test| world.trial(caller, test)));
    }
    let caller = half.unwrap_or_else(|| Caller::own().to_string());
    world.session.results.plan(step.name, trials.len(), &caller);
    world.session.run(trials)
}

/// Runs root's tests and the user's at the same time, where root is to run
/// both: in two processes, each with a host of its own to compare, since most
/// of the time is spent waiting. None in those two, and where there is nothing
/// to divide.
fn in_halves() -> Result<Option<ExitCode>> {
    if env::var_os(HALF).is_some() {
        // Nobody waits for a half whose other half was killed.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        return Ok(None);
    }
    if Caller::own() != Caller::Root || Arguments::from_args().list {
        return Ok(None);
    }
    let half = |caller: Caller| -> Result<Command> {
        let mut command = Command::new(env::current_exe()?);
        command.args(env::args_os().skip(1)).env(HALF, caller.to_string());
        Ok(command)
    };
    // Shown when root's have been: one after another.
    let mut shown = tempfile::tempfile()?;
    let mut user = half(Caller::User)?
        .stdout(shown.try_clone()?)
        .stderr(shown.try_clone()?)
        .spawn()?;
    let root = half(Caller::Root)?.status()?;
    let user = user.wait()?;
    shown.rewind()?;
    io::copy(&mut shown, &mut io::stdout())?;
    let is_good = root.success() && user.success();
    Ok(Some(if is_good { ExitCode::SUCCESS } else { ExitCode::from(101) }))
}

/// What makes a suite end before its first test.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "suite: {error:#}");
    ExitCode::FAILURE
}

fn trial(
    world: &Arc<World>,
    caller: Caller,
    name: String,
    needs_container: bool,
    leaves: &'static [&'static str],
    test: impl Fn(&Subject) -> Result<()> + Send + 'static,
) -> Trial {
    let world = Arc::clone(world);
    Trial::ignorable_test(name.clone(), move || {
        let began = Instant::now();
        let result = world.run(caller, needs_container, leaves, &test);
        world.finish(&name, began, result)
    })
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_pattern_stands_for_names() {
        assert!(matches("step07* user: *", "step07-cgroups user: own PIDs"));
        assert!(matches("*", ""));
        assert!(!matches("step07*", "step06-pivot-root root: own PIDs"));
        assert!(!matches("step07", "step07-cgroups"));
        assert!(!matches("", "step07"));
    }
}
