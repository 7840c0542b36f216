//! Judging a program that we know nothing about: row by row, in a process of
//! its own, on a host of its own where we are root. Whatever the program does,
//! it is stopped in time, and nothing of it stays.

use std::collections::BTreeSet;
use std::env::ArgsOs;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Lines, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::setsid;
use tempfile::TempDir;

use crate::OWN_PROGRAM;
use crate::caller::Caller;
use crate::cgroup::{Groups, Pen};
use crate::host;
use crate::process::{Process, kill_left_behind, sweep};
use crate::program::Subject;
use crate::property::{Finding, PROPERTIES, Verdict};
use crate::sandbox::Sandbox;

/// The first argument of a process that plays this part.
pub const PART: &str = "suite:judge";

/// A program that needs longer for one row hangs.
const LONGEST: Duration = Duration::from_secs(5);

/// A program that needs longer to run a command at all hangs.
const FIRST: Duration = Duration::from_secs(3);

/// What takes longer to die was left behind.
const SETTLING: Duration = Duration::from_millis(300);

/// No line is longer: a program may flood its output.
const WIDEST: usize = 400;

/// What the judge says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The program runs no command, and this is seen instead. No row follows.
    RunsNothing(String),
    /// A row of the table.
    Row {
        /// Which one of [`PROPERTIES`].
        row: usize,
        /// None when it could not be seen.
        verdict: Option<Verdict>,
        /// What was seen.
        seen: String,
    },
    /// What the program left on the host; it was removed.
    Left(String),
}

/// A program that is being judged. Dropped, the judge and everything that the
/// program started are ended.
#[derive(Debug)]
pub struct Judge {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pen: Pen,
    // What the program makes in the folder for temporary files goes with it.
    _folder: TempDir,
}

impl Judge {
    /// Judges `program` by what that step is to isolate, 1 to 7. This process
    /// must have no other children.
    pub fn begin(program: &Path, step: usize) -> Result<Self> {
        prctl::set_child_subreaper(true)?;
        let folder = TempDir::with_prefix("workshop-check-")?;
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open)?;
        let pen = Pen::make();
        let mut child = Command::new(OWN_PROGRAM)
            .arg(PART)
            .arg(step.to_string())
            .arg(program)
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the judge")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self { child, lines, pen, _folder: folder })
    }

    /// The judge's own process: once killed, it has no more to say.
    pub fn process(&self) -> Process {
        Process(i32::try_from(self.child.id()).expect("a PID fits"))
    }

    /// The next word, or None after the last.
    pub fn hear(&mut self) -> Result<Option<Word>> {
        match self.lines.next() {
            Some(line) => word(&line?).map(Some),
            None => {
                let status = self.child.wait()?;
                ensure!(status.success(), "the judge gave up: {status}");
                Ok(None)
            }
        }
    }

    /// The control groups that the program left, to be asked at the end.
    pub fn groups_left(&self) -> Vec<PathBuf> {
        self.pen.left()
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        sweep();
    }
}

/// A line that the judge wrote.
fn word(line: &str) -> Result<Word> {
    let (key, text) = line.split_once(' ').unwrap_or((line, ""));
    let seen = text.to_owned();
    let verdict = match key {
        "nothing" => return Ok(Word::RunsNothing(seen)),
        "left" => return Ok(Word::Left(seen)),
        "error" => bail!(seen),
        "holds" => Some(Verdict::Holds),
        "leaks" => Some(Verdict::Leaks),
        "unseen" => None,
        _ => bail!("the judge said {line:?}"),
    };
    let (row, seen) = text.split_once(' ').unwrap_or((text, ""));
    Ok(Word::Row { row: row.parse()?, verdict, seen: seen.to_owned() })
}

fn tell(key: &str, text: &str) {
    let _ = writeln!(io::stdout(), "{key} {}", one_line(text));
}

fn one_line(text: &str) -> String {
    let text = text.trim().replace('\n', "; ").replace('\t', " ");
    let mut rest = text.chars().filter(|c| !c.is_control());
    let mut line: String = rest.by_ref().take(WIDEST).collect();
    if rest.next().is_some() {
        line.push('…');
    }
    line
}

/// `suite:judge STEP PROGRAM`
pub fn main(mut args: std::iter::Skip<ArgsOs>) -> ! {
    let step = args.next().and_then(|step| step.to_str()?.parse().ok());
    let result = match (step, args.next()) {
        (Some(step), Some(program)) => judge(step, Path::new(&program)),
        _ => Err(anyhow::anyhow!("an argument is missing")),
    };
    if let Err(error) = result {
        tell("error", &format!("{error:#}"));
    }
    process::exit(0);
}

fn judge(step: usize, program: &Path) -> Result<()> {
    // No terminal: the program shall neither read from it nor change it, and
    // Ctrl-C is for the one who started us.
    setsid()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    host::enter()?;
    // Where there is no writing to the tree, there is nothing to remove.
    let _ = Pen::enter();
    let groups = Groups::make().unwrap_or_default();
    let sandbox = Sandbox::foreign(program)?;
    let caller = Caller::own();
    let subject = Subject { caller, sandbox: &sandbox, groups: &groups, step };
    let here = sandbox.dir().to_string_lossy();
    let tell = |key: &str, text: String| tell(key, &text.replace(&*here, "."));
    let guard = Guard::new();
    if let Err(error) = guard.run(&subject, runs_a_command) {
        tell("nothing", format!("{error:#}"));
        return Ok(());
    }
    for (row, property) in PROPERTIES.iter().enumerate() {
        if property.of(step) != Verdict::Holds {
            continue;
        }
        match guard.run(&subject, property.probe) {
            Ok(Finding { verdict, seen }) => {
                tell(&verdict.to_string(), format!("{row} {seen}"));
            }
            Err(error) => tell("unseen", format!("{row} {error:#}")),
        }
    }
    for change in guard.left() {
        tell("left", change);
    }
    Ok(())
}

/// The least of all: without this nothing can be seen.
fn runs_a_command(subject: &Subject) -> Result<Finding> {
    // A banner may show the script.
    let output = subject.sh("echo it ru''ns").limit(FIRST).run()?;
    if !output.out().contains("it runs") {
        let mut said = output.complaints();
        said.retain(|line| !line.is_empty());
        said.extend(output.out().lines().map(str::to_owned));
        said.truncate(3);
        if said.is_empty() {
            said.push("nothing".to_owned());
        }
        bail!("{}, and it said: {}", output.ended(), said.join("; "));
    }
    Ok(Finding { verdict: Verdict::Holds, seen: String::new() })
}

/// Watches over the clock, and over the host.
struct Guard {
    end: Arc<Mutex<Option<Instant>>>,
    left: Mutex<BTreeSet<String>>,
}

impl Guard {
    fn new() -> Self {
        let end: Arc<Mutex<Option<Instant>>> = Arc::default();
        let watched = Arc::clone(&end);
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(50));
                let end =
                    *watched.lock().unwrap_or_else(PoisonError::into_inner);
                if end.is_some_and(|end| Instant::now() > end) {
                    // Whoever waits for them waits no longer.
                    kill_left_behind();
                }
            }
        });
        Self { end, left: Mutex::default() }
    }

    fn set_end(&self, end: Option<Instant>) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }

    fn run(
        &self,
        subject: &Subject,
        probe: fn(&Subject) -> Result<Finding>,
    ) -> Result<Finding> {
        let start = Instant::now();
        self.set_end(Some(start + LONGEST));
        let (result, changes) = host::guard(
            subject.groups,
            &[],
            SETTLING,
            || {
                let result = probe(subject);
                self.set_end(None);
                if !matches!(&result, Ok(found) if found.verdict == Verdict::Holds)
                {
                    // The finding says it.
                    sweep();
                }
                let is_late = start.elapsed() > LONGEST;
                ensure!(!is_late, "still running after {LONGEST:?}");
                result
            },
        );
        self.set_end(None);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.extend(changes.iter().map(|change| brief(change)));
        result
    }

    fn left(self) -> BTreeSet<String> {
        self.left.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of the host in a few words, the same for the same thing.
fn brief(change: &str) -> String {
    match change.split_once(": ") {
        Some(("mount left behind", line)) => {
            let at = line.split(' ').nth(4).unwrap_or(line);
            format!("a mount on {at}")
        }
        Some(("process left behind", line)) => {
            let args = line.split_once(' ').map_or(line, |(_, args)| args);
            let args: String = args.chars().take(60).collect();
            format!("a process: {args}")
        }
        Some(("cgroup left behind", line)) => format!("a cgroup: {line}"),
        _ => change.to_owned(),
    }
}
