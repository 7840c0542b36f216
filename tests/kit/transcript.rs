//! Transcripts: what a reader sees who types a command, asserted against the
//! files in `transcripts/`, which the book shows.
//!
//! What differs from one host to the next is replaced by something as real:
//! PIDs of the host, its name, the folder. What a lesson is about stays.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::replace;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::cgroup::hierarchies;
use crate::harness::skip;
use crate::host::Outside;
use crate::process::{self, Process};
use crate::program::{Held, Subject};
use crate::start::Given;
use crate::terminal::Terminal;
use crate::trace;

/// The first PID of the host in every transcript.
const FIRST_PID: i32 = 1079;

/// So wide that ps cuts nothing off while the PIDs are those of this host:
/// the rows are cut at 80 columns once they are replaced.
const COLUMNS: u16 = 400;

/// The host's name in every transcript.
pub const HOST_NAME: &str = "laptop";

/// The key that interrupts.
pub const CTRL_C: &str = "\x03";

/// The folder in which the reader stands.
const FOLDER: &str = "/home/you/container";

/// Where in it the programs are.
const BIN: &str = "target/debug";

/// The uid and gid of the reader in every transcript.
const ID: u32 = 1000;

/// The first address that a trace shows.
const FIRST_ADDRESS: u64 = 0x7ffc_3a5e_1d40;

/// What a reader typed and saw.
#[derive(Debug)]
pub struct Transcript<'a> {
    subject: Subject<'a>,
    outside: Option<Outside>,
    text: String,
    pids: BTreeMap<i32, i32>,
    addresses: BTreeMap<String, String>,
    /// What the host was called at the beginning: a broken step renames it.
    host: String,
    /// Links such as `uts:[4026532177]` by their substitutes.
    namespaces: BTreeMap<String, String>,
}

impl Subject<'_> {
    /// Skips a transcript that counts on a busybox which starts in any root,
    /// without libraries, as the line of the escape does.
    pub fn needs_busybox_root(&self) -> Result<()> {
        let output = self
            .start(["nsenter", "-r/tmp", "-w/", "bin/busybox", "true"])
            .run()?;
        if !output.status.success() {
            return Err(skip("needs a root made from a static busybox"));
        }
        Ok(())
    }
}

impl<'a> Transcript<'a> {
    /// An empty one.
    pub fn new(subject: &Subject<'a>) -> Self {
        let host = nix::unistd::gethostname().unwrap_or_default();
        Self {
            subject: *subject,
            outside: None,
            text: String::new(),
            pids: BTreeMap::new(),
            addresses: BTreeMap::new(),
            host: host.to_string_lossy().into_owned(),
            namespaces: BTreeMap::new(),
        }
    }

    /// An empty one on a host to be ruined, with a name and a mount table of
    /// its own and `/` shared, as systemd makes it. It ends with this.
    pub fn on_shared_host(subject: &Subject<'a>) -> Result<Self> {
        let outside = Some(Outside::new(subject)?);
        Ok(Self { outside, ..Self::new(subject) })
    }

    /// Types a line to a shell on a terminal.
    pub fn type_line(&mut self, line: &str) -> Result<&mut Self> {
        self.type_line_and(line, |_| Ok(()))
    }

    /// Types a line and, when the command that it starts is the foreground
    /// process of the terminal, a key.
    pub fn type_line_and_key(
        &mut self,
        line: &str,
        command: &[&str],
        key: &str,
    ) -> Result<&mut Self> {
        self.type_line_and(line, |terminal| {
            let process = process::find("command", |args| args == command)?;
            let in_front = process::settles(|| process.is_in_foreground());
            ensure!(in_front, "{command:?} is not in the foreground");
            terminal.types(key)
        })
    }

    fn type_line_and(
        &mut self,
        line: &str,
        meanwhile: impl FnOnce(&mut Terminal) -> Result<()>,
    ) -> Result<&mut Self> {
        if trace::is_typed(line) {
            trace::must_be_possible(&self.subject)?;
        }
        let mut terminal = Terminal::with_columns(&self.subject, COLUMNS)?;
        // Through a variable: the shell's own arguments show in ps.
        let shell = ["-c", SHELL];
        let start = self.subject.beside("/bin/sh", shell);
        let mut start = start.given(Given::NoOthers);
        start = start
            .variable("LINE", line)
            .variable("TERM", "xterm")
            .variable("PATH", self.subject.search_path());
        if let Some(outside) = &self.outside {
            start = outside.of(start);
        }
        let running = terminal.of(start).spawn()?;
        let shell = running.process();
        meanwhile(&mut terminal)?;
        terminal.stays_until(running)?;
        let shown = terminal.all()?.replace("\r\n", "\n");
        self.add(line, &shown, shell);
        Ok(self)
    }

    /// Looks at a container from outside: the line is made from the PID that
    /// its command has on the host.
    pub fn type_while_it_runs(
        &mut self,
        held: &Held,
        line: impl Fn(i32) -> String,
    ) -> Result<&mut Self> {
        let line = line(held.process.0);
        self.type_line(&line)
    }

    /// Puts what a reader's machine could have in the place of what this one
    /// has.
    pub fn with(&mut self, of_a_reader: fn(&str) -> String) -> &mut Self {
        self.text = of_a_reader(&self.text);
        self
    }

    /// What was typed and seen.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Asserts it.
    pub fn matches(&self, name: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts"),
        );
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, self.text));
    }

    fn add(&mut self, line: &str, shown: &str, shell: Process) {
        let is_trace = trace::is_typed(line);
        let typed = self.replace_known(line);
        self.text += &format!("$ {typed}\n");
        let mut ps = None;
        let mut lines: Vec<String> = Vec::new();
        let mut joined: Vec<_> = match is_trace {
            true => trace::join(shown),
            false => shown.lines().map(str::to_owned).collect(),
        };
        oldest_first(&mut joined, shell);
        for line in &joined {
            if let (true, Some(call)) = (is_trace, self.call(line)) {
                lines.push(call);
                continue;
            }
            let words: Vec<_> = line.split_whitespace().collect();
            if is_heading(&words) {
                ps = Some(Ps::new(words.contains(&"PPID"), shell));
            }
            match &mut ps {
                Some(ps) => lines.extend(ps.row(self, &words)),
                None if line.starts_with("running [") => {
                    lines.push(self.replace_known(line));
                }
                None if typed.contains(" ls ") => lines.push(listing(line)),
                None if group_pid(line).is_some() => {
                    lines.extend(self.group(line));
                }
                None if line.contains("cat: ") => {
                    let line = self.replace_known(line);
                    lines.push(busybox_cat(&line).unwrap_or(line));
                }
                // Every shell says it in words of its own, some repeatedly.
                None if line.contains("sh: ") && line.contains("fork") => {
                    lines.push("sh: 0: Cannot fork".to_owned());
                    lines.dedup();
                }
                None if line.contains("kill") && line.contains("No such p") => {
                    lines.push(NO_SUCH_PROCESS.to_owned());
                }
                // dash adds an empty line.
                None if line.is_empty()
                    && lines.last().is_some_and(|l| l == NO_SUCH_PROCESS) => {}
                // Of a job in the background only some say it, dash when it
                // happens to be waiting for that one.
                _ if ["Killed", "Terminated"].iter().any(|how| {
                    line == how || line.contains(&format!(" {how}  "))
                }) => {}
                None => lines.push(self.replace_known(line)),
            }
        }
        // busybox's ps says nothing where procps's complains.
        if ps.is_some() && lines.len() < 4 {
            lines.pop();
            lines.push(NO_PROC.to_owned());
        }
        for line in lines {
            self.text += line.trim_end();
            self.text.push('\n');
        }
    }

    /// A line of strace, if it is one.
    fn call(&mut self, line: &str) -> Option<String> {
        let line = self.replace_ids(&self.replace_folder(line));
        let line = self.replace_groups(&line);
        trace::show(&line, self)
    }

    /// A PID of the host by its substitute; those inside are the lesson.
    pub(crate) fn pid(&mut self, pid: i32) -> i32 {
        if pid < 10 {
            return pid;
        }
        let next = FIRST_PID + i32::try_from(self.pids.len()).unwrap_or(0);
        *self.pids.entry(pid).or_insert(next)
    }

    /// The substitute of a PID that was shown before.
    pub(crate) fn known_pid(&self, pid: i32) -> Option<i32> {
        self.pids.get(&pid).copied()
    }

    /// The substitute of an address.
    pub(crate) fn address(&mut self, address: &str) -> String {
        let next = self.addresses.len() as u64 * 0x1d8 + FIRST_ADDRESS;
        let own = || format!("{next:#x}");
        self.addresses.entry(address.to_owned()).or_insert_with(own).clone()
    }

    fn replace_folder(&self, line: &str) -> String {
        let folder = self.subject.sandbox.dir().to_string_lossy();
        line.replace(&format!("{folder}/bin/"), &format!("{FOLDER}/{BIN}/"))
            .replace(&*folder, FOLDER)
    }

    /// The uid and gid of the ordinary user by the usual ones.
    fn replace_ids(&self, line: &str) -> String {
        let (uid, gid) = self.subject.caller.ids();
        let mut line = line.to_owned();
        for id in BTreeSet::from([uid, gid]) {
            if id > ID {
                line = replace_number(&line, id);
            }
        }
        line
    }

    /// The arguments of a process, with the launcher's PID in them replaced.
    fn args(&mut self, words: &[&str]) -> String {
        // busybox's shell runs busybox's ps without exec, which ps shows as
        // `{ps} sh -c ps …`.
        if let ["{ps}", args @ ..] = words {
            let line = args.join(" ");
            let ps = line.split(';').next().and_then(|it| it.find("ps "));
            return ps.map_or("ps", |at| &line[at..]).replace("; :", "");
        }
        // A zombie, as procps marks it and busybox does not.
        if let Some(name) = words.first().filter(|it| it.starts_with('[')) {
            return format!("{name} <defunct>");
        }
        let mut last = "";
        let words: Vec<_> = words
            .iter()
            .map(|word| match (replace(&mut last, word), word.parse()) {
                ("--launcher", Ok(pid)) => self.pid(pid).to_string(),
                _ => (*word).to_owned(),
            })
            .collect();
        words.join(" ")
    }

    fn replace_known(&mut self, line: &str) -> String {
        let mut line = self.replace_folder(line);
        // A banner introduces a PID, and so does a path below /proc.
        if line.starts_with("running [") {
            if let Some((head, pid)) = line.rsplit_once(" as ") {
                let pid = pid.parse().map_or(0, |pid| self.pid(pid));
                return format!("{head} as {pid}");
            }
        }
        // As /proc/PID/status says it.
        let field = line.split_once(":\t");
        let is_pid = |(key, _): &(&str, _)| key.to_lowercase().ends_with("pid");
        if let Some((key, numbers)) = field.filter(is_pid) {
            let numbers = numbers.split_whitespace();
            let numbers: Vec<i32> = numbers.flat_map(str::parse).collect();
            // In a container PID 1 came before it, and said only that.
            match numbers[..] {
                [pid, ..] if self.known_pid(pid).is_none() => {
                    self.pid(pid - 1);
                }
                _ => {}
            }
            let numbers = numbers.iter().map(|pid| self.pid(*pid).to_string());
            let numbers: Vec<_> = numbers.collect();
            return format!("{key}:\t{}", numbers.join("\t"));
        }
        if let Some((head, tail)) = line.split_once("/proc/") {
            let end = tail.find(|c: char| !c.is_ascii_digit());
            let (pid, rest) = tail.split_at(end.unwrap_or(tail.len()));
            if let Ok(pid) = pid.parse() {
                line = format!("{head}/proc/{}{rest}", self.pid(pid));
            }
        }
        if let Some(pid) = line.parse().ok().and_then(|pid| self.pids.get(&pid))
        {
            return pid.to_string();
        }
        if line == self.host {
            return HOST_NAME.to_owned();
        }
        self.namespace(&line).unwrap_or_else(|| self.replace_ids(&line))
    }

    /// Control groups by where a reader's are, and those of launchers by their
    /// substitutes.
    fn replace_groups(&mut self, line: &str) -> String {
        let mut line = line.to_owned();
        if !line.contains(GROUPS) {
            return line;
        }
        let given = self.subject.groups.of(self.subject.caller);
        for (n, found) in hierarchies().unwrap_or_default().iter().enumerate() {
            let own = given.get(n).unwrap_or(&found.own);
            let mut replace = |path: &Path, by: &str| {
                line = line.replace(&*path.to_string_lossy(), by);
            };
            if !found.is_v2 {
                let names = found.controllers.join(",");
                replace(own, &format!("{GROUPS}/{names}"));
            } else if let Some(above) = own.parent() {
                replace(own, &format!("{GROUPS}/{SLICE}/{SCOPE}"));
                replace(above, &format!("{GROUPS}/{SLICE}"));
            }
        }
        let Some((head, tail)) = line.split_once(GROUP) else { return line };
        let end = tail.find(|c: char| !c.is_ascii_digit());
        let (pid, rest) = tail.split_at(end.unwrap_or(tail.len()));
        match pid.parse() {
            Ok(pid) => format!("{head}{GROUP}{}{rest}", self.pid(pid)),
            Err(_) => line,
        }
    }

    /// The name of a launcher's control group, if the launcher is ours: there
    /// may be others on this host.
    fn group(&self, name: &str) -> Option<String> {
        let pid = self.pids.get(&group_pid(name)?)?;
        Some(format!("{GROUP}{pid}"))
    }

    /// A line that is what `/proc/PID/ns/KIND` leads to.
    fn namespace(&mut self, link: &str) -> Option<String> {
        let (kind, number) = link.split_once(":[")?;
        number.strip_suffix(']')?.parse::<u32>().ok()?;
        let host = process::own().namespace(kind).ok()?;
        if link == host {
            let (_, number) =
                FIRST_NAMESPACES.iter().find(|it| it.0 == kind)?;
            return Some(format!("{kind}:[{number}]"));
        }
        let next = self.namespaces.len() + FIRST_OWN_NAMESPACE;
        let own = || format!("{kind}:[{next}]");
        Some(self.namespaces.entry(link.to_owned()).or_insert_with(own).clone())
    }
}

/// Replaces a number by [`ID`], and keeps it where it stands in a table.
fn replace_number(line: &str, number: u32) -> String {
    let number = number.to_string();
    let mut shown = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(&number) {
        let (head, tail) = rest.split_at(at);
        let tail = &tail[number.len()..];
        shown += head;
        let is_part = head.ends_with(|c: char| c.is_ascii_alphanumeric())
            || tail.starts_with(|c: char| c.is_ascii_alphanumeric());
        shown += &match head {
            _ if is_part => number.clone(),
            _ if head.ends_with("  ") => format!("{ID:>0$}", number.len()),
            _ => ID.to_string(),
        };
        rest = tail;
    }
    shown + rest
}

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// The reader's group on version 2, and the one above it.
const SCOPE: &str = "shell.scope";
const SLICE: &str = "user.slice";

/// What the name of a control group begins with, before its launcher's PID.
const GROUP: &str = "step07-";

/// The launcher's PID in the name of its control group.
fn group_pid(name: &str) -> Option<i32> {
    name.strip_prefix(GROUP)?.parse().ok()
}

/// The numbers that the kernel gives to the namespaces that it starts with.
const FIRST_NAMESPACES: [(&str, u32); 4] = [
    ("cgroup", 4_026_531_835),
    ("user", 4_026_531_837),
    ("uts", 4_026_531_838),
    ("ipc", 4_026_531_839),
];

/// The number of the first namespace that a transcript shows beside them.
const FIRST_OWN_NAMESPACE: usize = 4_026_532_177;

/// What `ls` shows in one row, spaced as GNU's does, without what depends on
/// where this host keeps its programs and libraries.
fn listing(line: &str) -> String {
    let depends = ["lib", "lib32", "lib64", "libx32", "sbin", "usr"];
    let words = line.split_whitespace().filter(|word| !depends.contains(word));
    words.collect::<Vec<_>>().join("  ")
}

/// GNU's complaint in busybox's words.
fn busybox_cat(line: &str) -> Option<String> {
    let line = line.strip_prefix("/bin/").unwrap_or(line);
    let (path, error) = line.strip_prefix("cat: ")?.split_once(": ")?;
    // As it is in busybox.
    if path.starts_with("can't open ") {
        return None;
    }
    Some(format!("cat: can't open '{path}': {error}"))
}

/// What the kit's shell runs.
const SHELL: &str = r#"eval "$LINE""#;

/// dash's kill.
const NO_SUCH_PROCESS: &str = "sh: 1: kill: No such process";

/// procps's ps without /proc.
const NO_PROC: &str = "Error, do this: mount -t proc proc /proc";

/// The PID of the reader's shell in every transcript.
const SHELL_PID: i32 = 1042;

/// The rows of ps(1), aligned as procps does. Where it shows the whole host,
/// only its PID 1 and what comes from the reader's shell are kept.
struct Ps {
    /// Whether there is a column PPID.
    has_parents: bool,
    /// The shell and what comes from it.
    family: BTreeSet<i32>,
    shell: i32,
}

/// Sorts the rows of a ps by age. The host's numbers begin again when they
/// have come to pid_max: what is below the shell's was given out after it.
fn oldest_first(lines: &mut [String], shell: Process) {
    let is_header = |line: &String| line.trim_start().starts_with("PID ");
    let Some(header) = lines.iter().position(is_header) else { return };
    lines[header + 1..].sort_by_key(|line| {
        let pid = line.split_whitespace().next().map(str::parse);
        let pid: i32 = pid.and_then(Result::ok).unwrap_or(i32::MAX);
        (pid > 1 && pid < shell.0, pid)
    });
}

impl Ps {
    fn new(has_parents: bool, shell: Process) -> Self {
        let family = BTreeSet::from([shell.0]);
        Self { has_parents, family, shell: shell.0 }
    }

    fn row(
        &mut self,
        transcript: &mut Transcript,
        words: &[&str],
    ) -> Option<String> {
        let host = process::own().0;
        let mut show = |number: i32| match number {
            number if number == self.shell => SHELL_PID,
            // An orphan becomes the suite's child, and the host's PID 1's
            // where there is no suite.
            number if number == host => 1,
            number => transcript.pid(number),
        };
        let Ok(pid) = words.first()?.parse::<i32>() else {
            let header = words.iter().map(|word| match *word {
                "PID" | "PPID" => format!("{word:>5}"),
                other => other.to_owned(),
            });
            return Some(header.collect::<Vec<_>>().join(" "));
        };
        if !self.has_parents {
            let args = transcript.args(&words[1..]);
            return Some(cut(format!("{pid:>5} {args}")));
        }
        let parent: i32 = words.get(1)?.parse().ok()?;
        if pid == 1 && self.shell != 1 {
            return Some("    1     0 /sbin/init\n  ...".to_owned());
        }
        let is_family = self.family.contains(&parent);
        if is_family || (parent == host && pid != self.shell) {
            self.family.insert(pid);
            let numbers = format!("{:>5} {:>5}", show(pid), show(parent));
            let args = transcript.args(&words[2..]);
            return Some(cut(format!("{numbers} {args}")));
        }
        None
    }
}

/// Whether ps writes that above its columns.
fn is_heading(words: &[&str]) -> bool {
    let is_title = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase());
    words.first() == Some(&"PID") && words.iter().all(is_title)
}

/// As ps does at the right edge of the terminal.
fn cut(row: String) -> String {
    row.chars().take(80).collect()
}
