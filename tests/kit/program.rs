//! Starting the program under test, and what became of it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::pipe2;

use crate::OWN_PROGRAM;
use crate::caller::Caller;
use crate::cgroup::{self, Groups};
use crate::probe;
use crate::process::{self, Process};
use crate::sandbox::{PROBE, Sandbox};
use crate::start::{self, Given};

/// A program that takes longer hangs, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What a program writes beyond is read and forgotten.
const BOUND: usize = 16 * 1024 * 1024;

/// Where the programs of every distribution are.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// The program under test, one of its two callers, and where it is started.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who calls.
    pub caller: Caller,
    /// Where, and what.
    pub sandbox: &'a Sandbox,
    /// The groups that the caller is in.
    pub groups: &'a Groups,
    /// Which of the seven steps it is, or is meant to be.
    pub step: usize,
}

impl Subject<'_> {
    /// `PROGRAM ARGS…`
    pub fn command<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Start {
        self.beside(&self.sandbox.program, args)
    }

    /// Another program, by the same caller at the same place.
    pub fn beside<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<Path>,
        args: impl IntoIterator<Item = S>,
    ) -> Start {
        let mut given: Vec<_> = self
            .groups
            .of(self.caller)
            .iter()
            .map(|dir| Given::Group(dir.clone()))
            .collect();
        let mut start = Start::of(program.as_ref(), args, self.sandbox.dir());
        if self.sandbox.is_foreign() && self.caller == Caller::User {
            given.push(Given::Processes(cgroup::MOST));
        }
        if !self.sandbox.is_foreign() {
            // A shell may read and write files in its home.
            start = start.variable("HOME", self.sandbox.dir());
        }
        if self.caller.is_another() {
            let (uid, gid) = self.caller.ids();
            given.push(Given::Ids(uid, gid));
            // Ours may lead to folders that are closed to others.
            start = start.variable("PATH", PATH);
        }
        Start { given, ..start }
    }

    /// `PROGRAM run CMD…`, the contract.
    pub fn start<S: AsRef<OsStr>>(
        &self,
        command: impl IntoIterator<Item = S>,
    ) -> Start {
        let mut args = vec![OsString::from("run")];
        args.extend(command.into_iter().map(|a| a.as_ref().to_owned()));
        self.command(args)
    }

    /// `PROGRAM run sh -c SCRIPT`
    pub fn sh(&self, script: &str) -> Start {
        self.start(["/bin/sh", "-c", script])
    }

    /// `PROGRAM run PROBE ACTION ARGS…`, whether the root is the host's or
    /// `fs`.
    pub fn probe<S: AsRef<OsStr>>(
        &self,
        action: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Start {
        self.probe_from("", action, args)
    }

    /// The same with a redirection in the shell that execs the probe.
    pub fn probe_from<S: AsRef<OsStr>>(
        &self,
        redirection: &str,
        action: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Start {
        let outside = self.sandbox.probe();
        let script = format!(
            "echo '@@ be''gan'; p=/{PROBE}; [ -x $p ] || p='{}'; \
             exec \"$p\" \"$@\" {redirection}",
            outside.display()
        );
        let mut command: Vec<OsString> =
            ["/bin/sh", "-c", &script, "sh", probe::PART, action]
                .iter()
                .map(Into::into)
                .collect();
        command.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self.start(command)
    }

    /// Starts the probe so that it stays until it is let go, and finds it
    /// from outside.
    pub fn hold(&self) -> Result<Held> {
        Held::new(self.probe("hold", [""; 0]))
    }

    /// PATH with the program under test in front.
    pub fn search_path(&self) -> OsString {
        let mut path = self.path("bin").into_os_string();
        path.push(":");
        path.push(PATH);
        path
    }

    /// The path of a file in the sandbox.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.sandbox.dir().join(name)
    }
}

/// Whether these are the arguments of the probe itself: a launcher's only end
/// with them.
pub fn is_probe(args: &[OsString]) -> bool {
    args[0].as_encoded_bytes().ends_with(PROBE.as_bytes())
        && args.get(1).is_some_and(|arg| arg == probe::PART)
}

/// A probe in a container, held.
#[derive(Debug)]
pub struct Held {
    /// Its launcher.
    pub launcher: Running,
    /// The probe itself, by its number outside.
    pub process: Process,
    /// What it says of itself.
    pub says: Findings,
}

impl Held {
    /// Starts it and waits until it is ready.
    pub fn new(start: Start) -> Result<Self> {
        let launcher = start.with_input().spawn()?;
        let mark = format!("{}ready", probe::MARK);
        launcher.wait_for_output(&mark)?;
        let process = launcher.find("probe in the container", is_probe)?;
        let says = Findings::from(&launcher.output_so_far()[..]);
        Ok(Self { launcher, process, says })
    }

    /// Lets it go; gives what the launcher said.
    pub fn release(mut self) -> Result<Output> {
        self.launcher.end_input();
        self.launcher.wait()
    }
}

/// How the program under test is to be started.
#[derive(Debug)]
pub struct Start {
    program: PathBuf,
    args: Vec<OsString>,
    dir: PathBuf,
    given: Vec<Given>,
    tracer: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    has_no_variables: bool,
    stdin: Option<Input>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    is_merged: bool,
    limit: Duration,
}

#[derive(Debug)]
enum Input {
    Bytes(Vec<u8>),
    Open,
}

impl Start {
    /// Any program, as the caller that this process is.
    pub fn of<S: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = S>,
        dir: &Path,
    ) -> Self {
        Self {
            program: program.to_owned(),
            args: args.into_iter().map(|a| a.as_ref().to_owned()).collect(),
            dir: dir.to_owned(),
            given: Vec::new(),
            tracer: Vec::new(),
            variables: Vec::new(),
            has_no_variables: false,
            stdin: None,
            stdout: None,
            stderr: None,
            is_merged: false,
            limit: LIMIT,
        }
    }

    /// With these bytes on stdin; without, stdin is empty.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(Input::Bytes(bytes.into()));
        self
    }

    /// With a stdin that stays open.
    pub fn with_input(mut self) -> Self {
        self.stdin = Some(Input::Open);
        self
    }

    /// For so long at most.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// With another stdout.
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.stdout = Some(to.into());
        self
    }

    /// With another stderr.
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.stderr = Some(to.into());
        self
    }

    /// With stdout and stderr in one stream, as a reader sees them.
    pub fn merged(mut self) -> Self {
        self.is_merged = true;
        self
    }

    /// With these options before `run`.
    pub fn options<S: AsRef<OsStr>>(
        mut self,
        options: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut all: Vec<_> =
            options.into_iter().map(|o| o.as_ref().to_owned()).collect();
        all.append(&mut self.args);
        self.args = all;
        self
    }

    /// With this variable in its environment.
    pub fn variable(
        mut self,
        key: impl Into<OsString>,
        value: impl Into<OsString>,
    ) -> Self {
        self.variables.push((key.into(), value.into()));
        self
    }

    /// Without any other variable.
    pub fn no_variables(mut self) -> Self {
        self.has_no_variables = true;
        self
    }

    /// In this working directory.
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }

    /// With this given by its caller, before the caller's ids are taken.
    pub fn given(mut self, given: Given) -> Self {
        self.given.insert(0, given);
        self
    }

    /// By a process that traces it: a part of the suite, with its arguments.
    pub fn traced_by(mut self, tracer: Vec<OsString>) -> Self {
        self.given.push(Given::Traced);
        self.tracer = tracer;
        self
    }

    /// Without the groups that the suite made for it.
    pub fn without_groups(mut self) -> Self {
        self.given.retain(|given| !matches!(given, Given::Group(_)));
        self
    }

    /// By `PROGRAM ARGS… OURS…`, such as setpriv(1).
    pub fn through<S: AsRef<OsStr>>(
        mut self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut all: Vec<_> =
            args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        all.push(self.program.into_os_string());
        all.append(&mut self.args);
        self.program = program.into();
        self.args = all;
        self
    }

    /// With these signals ignored, as by nohup(1): names without SIG.
    pub fn ignoring(self, signals: &str) -> Self {
        let script = format!("trap '' {signals}; exec \"$@\"");
        self.through("/bin/sh", ["-c", &script, "sh"])
    }

    /// Starts it.
    pub fn spawn(self) -> Result<Running> {
        let mut command = Command::new(OWN_PROGRAM);
        if !self.tracer.is_empty() {
            command.args(&self.tracer).arg(OWN_PROGRAM);
        }
        command
            .arg(start::PART)
            .args(self.given.iter().map(Given::to_arg))
            .arg("--")
            .arg(&self.program)
            .args(&self.args)
            .current_dir(&self.dir)
            // A panic or a backtrace shall not hide.
            .env("RUST_BACKTRACE", "1")
            .env_remove("ENV")
            .env_remove("BASH_ENV")
            .envs(self.variables);
        if self.has_no_variables {
            command.env_clear();
        }
        command.stdin(match self.stdin {
            None => Stdio::null(),
            Some(_) => Stdio::piped(),
        });
        let mut streams = Vec::new();
        let pipe = |streams: &mut Vec<_>| -> Result<OwnedFd> {
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
            streams.push(Stream::new(File::from(reader)));
            Ok(writer)
        };
        if self.is_merged {
            let writer = pipe(&mut streams)?;
            command.stdout(writer.try_clone()?);
            command.stderr(writer);
        } else {
            match self.stdout {
                Some(to) => command.stdout(to),
                None => command.stdout(pipe(&mut streams)?),
            };
            match self.stderr {
                Some(to) => command.stderr(to),
                None => command.stderr(pipe(&mut streams)?),
            };
        }
        let mut child = command.spawn().with_context(|| {
            format!("cannot start {}", self.program.display())
        })?;
        // It holds the other ends of the pipes.
        drop(command);
        let mut stdin = child.stdin.take();
        if let Some(Input::Bytes(bytes)) = self.stdin {
            let mut stdin = stdin.take().context("no stdin")?;
            thread::spawn(move || stdin.write_all(&bytes));
        }
        Ok(Running { child, stdin, streams, limit: self.limit })
    }

    /// Starts it and waits for its end.
    pub fn run(self) -> Result<Output> {
        self.spawn()?.wait()
    }
}

/// What a program writes, read as it comes.
#[derive(Debug)]
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Stream {
    fn new(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut piece = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = from.read(&mut piece) {
                let mut into = into.lock().expect("no reader panics");
                if into.len() < BOUND {
                    into.extend(&piece[..n]);
                }
            }
        });
        Self { bytes, reader }
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("no reader panics").clone()
    }

    fn len(&self) -> usize {
        self.bytes.lock().expect("no reader panics").len()
    }

    /// Whether `text` is in it. `from` is where the next look has to begin.
    fn contains(&self, text: &str, from: &mut usize) -> bool {
        let bytes = self.bytes.lock().expect("no reader panics");
        let mut new = bytes[*from..].windows(text.len());
        *from = (bytes.len() + 1).saturating_sub(text.len()).max(*from);
        new.any(|found| found == text.as_bytes())
    }

    /// Whether everything has been read.
    fn is_finished(&self) -> bool {
        self.reader.is_finished()
    }
}

/// A program under test that was started. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    streams: Vec<Stream>,
    limit: Duration,
}

impl Running {
    /// The launcher.
    pub fn process(&self) -> Process {
        Process(i32::try_from(self.child.id()).expect("a PID fits"))
    }

    /// Sends the launcher a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process().signal(signal)
    }

    /// Writes to its stdin.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin is closed")?;
        stdin.write_all(bytes)?;
        Ok(stdin.flush()?)
    }

    /// Ends its stdin.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// What it wrote to stdout, or to both where they are one.
    pub fn output_so_far(&self) -> Vec<u8> {
        self.streams.first().map(Stream::bytes).unwrap_or_default()
    }

    /// Waits until it wrote that.
    pub fn wait_for_output(&self, text: &str) -> Result<()> {
        let mut last_look = false;
        let mut from = 0;
        process::wait_for(&format!("output {text:?}"), self.limit, || {
            let stream = self.streams.first();
            if stream.is_some_and(|it| it.contains(text, &mut from)) {
                return Ok(Some(()));
            }
            self.expect_no_flood()?;
            // Reader threads may be behind; look once more after the end.
            if last_look {
                bail!("the program ended early");
            }
            last_look = !self.process().is_alive();
            if last_look {
                self.finish_reading();
            }
            Ok(None)
        })
        .with_context(|| {
            let all: Vec<_> =
                self.streams.iter().map(|s| start_of(&s.bytes())).collect();
            format!("the program said {all:?}")
        })
    }

    /// The process below us whose arguments begin with what `is` accepts, as
    /// [`process::find`] has it, while the launcher runs.
    pub fn find(
        &self,
        what: &str,
        is: impl Fn(&[OsString]) -> bool,
    ) -> Result<Process> {
        process::wait_for(what, self.limit, || {
            // Its end is no reason not to look.
            let is_alive = self.process().is_alive();
            let mut left = process::left_behind().into_iter();
            let found = left.find(|found| is(&found.args()));
            ensure!(found.is_some() || is_alive, "the program ended early");
            Ok(found)
        })
        .with_context(|| format!("no {what}"))
    }

    /// Waits for the launcher's end.
    pub fn wait(mut self) -> Result<Output> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            self.expect_no_flood()?;
            if start.elapsed() > self.limit {
                let left: Vec<String> = process::left_behind()
                    .iter()
                    .map(|it| it.describe().chars().take(60).collect())
                    .collect();
                bail!(
                    "still running after {:?}: {}",
                    self.limit,
                    left[..left.len().min(3)].join(", ")
                );
            }
            // On a slow machine, who looks often slows it down further.
            let little = start.elapsed() / 16;
            let [least, most] = [300, 10_000].map(Duration::from_micros);
            thread::sleep(little.clamp(least, most));
        };
        self.finish_reading();
        self.expect_no_flood()?;
        let mut streams = self.streams.iter().map(Stream::bytes);
        Ok(Output {
            status,
            stdout: streams.next().unwrap_or_default(),
            stderr: streams.next().unwrap_or_default(),
        })
    }

    /// Waits until all that it wrote before its end has been read. A process
    /// in the background may hold the other end for longer, so not for ever.
    fn finish_reading(&self) {
        let start = Instant::now();
        while !self.streams.iter().all(Stream::is_finished) {
            let passed = start.elapsed();
            let is_long = passed > Duration::from_millis(300);
            if passed > Duration::from_secs(3)
                || is_long && !process::left_behind().is_empty()
            {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Fails when not all that was written can be kept.
    fn expect_no_flood(&self) -> Result<()> {
        let is_flooded = self.streams.iter().any(|it| it.len() >= BOUND);
        ensure!(!is_flooded, "more than {} MB of output", BOUND / 1_000_000);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What became of a program under test.
#[derive(Clone, Debug)]
pub struct Output {
    /// How the launcher ended.
    pub status: ExitStatus,
    /// What came out.
    pub stdout: Vec<u8>,
    /// What else came out.
    pub stderr: Vec<u8>,
}

impl Output {
    /// stdout as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// stderr's lines without the banners.
    pub fn complaints(&self) -> Vec<String> {
        self.err()
            .lines()
            .filter(|line| !line.starts_with("running ["))
            .map(str::to_owned)
            .collect()
    }

    /// `exit status 3` or `signal 9`.
    pub fn ended(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "neither status nor signal".to_owned(),
        }
    }

    /// As a shell has it, to which a launcher that dies of a signal itself is
    /// no different from one that says so.
    pub fn shell_status(&self) -> Option<i32> {
        self.status.code().or(self.status.signal().map(|n| 128 + n))
    }

    /// Fails unless it ended with that status.
    pub fn expect_status(&self, code: i32) -> Result<&Self> {
        ensure!(
            self.status.code() == Some(code),
            "expected exit status {code}, got {self}"
        );
        Ok(self)
    }

    /// Fails unless stdout is exactly that.
    pub fn expect_out(&self, text: &str) -> Result<&Self> {
        ensure!(self.out() == text, "expected {text:?} on stdout, got {self}");
        Ok(self)
    }

    /// Fails unless the launcher failed with that status, one line that names
    /// what failed, at most one hint after it, and no panic.
    pub fn expect_failure(&self, code: i32, names: &str) -> Result<&Self> {
        self.expect_status(code)?;
        let lines = self.complaints();
        ensure!(
            lines.first().is_some_and(|line| line.contains(names)),
            "expected a line with {names:?}, got {self}"
        );
        ensure!(
            lines.len() == 1
                || (lines.len() == 2 && lines[1].starts_with("hint: ")),
            "expected one line and a hint at most, got {self}"
        );
        self.expect_no_panic()
    }

    /// Fails when something panicked.
    pub fn expect_no_panic(&self) -> Result<&Self> {
        for word in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
            ensure!(!self.err().contains(word), "a panic: {self}");
        }
        Ok(self)
    }

    /// What the probe said.
    pub fn findings(&self) -> Findings {
        Findings::from(&self.stdout[..])
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{}\nstdout: {:?}\nstderr: {:?}",
            self.ended(),
            start_of(&self.stdout),
            start_of(&self.stderr)
        )
    }
}

/// As much as a message can bear: a program may flood its output.
fn start_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(600).collect()
}

/// What the probe said, by key; a key may come more than once.
#[derive(Clone, Debug, Default)]
pub struct Findings(BTreeMap<String, Vec<String>>);

impl From<&[u8]> for Findings {
    fn from(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            // After what a foreign program may put before it.
            if let Some((_, line)) = line.split_once(probe::MARK) {
                let (key, value) = line.split_once(' ').unwrap_or((line, ""));
                found
                    .0
                    .entry(key.to_owned())
                    .or_default()
                    .push(value.to_owned());
            }
        }
        found
    }
}

impl Findings {
    /// Everything said under that key.
    pub fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], |values| &values[..])
    }

    /// The last that was said under that key.
    pub fn last(&self, key: &str) -> Option<&str> {
        self.all(key).last().map(String::as_str)
    }

    /// The same where it has to be there.
    pub fn get(&self, key: &str) -> Result<&str> {
        self.last(key).with_context(|| {
            format!("the probe said nothing of {key}: {self:?}")
        })
    }
}
