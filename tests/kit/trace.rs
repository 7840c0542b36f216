//! What strace(1) shows, so that it is the same on every host: what another
//! PID, another address or another C library changes is replaced.

use std::env::consts::ARCH;

use anyhow::{Result, bail};

use crate::harness::skip;
use crate::program::Subject;
use crate::transcript::Transcript;

/// What strace puts in the place of a call's end while another process acts.
const UNFINISHED: &str = " <unfinished ...>";

/// The column of the result, unless the call is longer.
const RESULT: usize = 40;

/// How std's `Command` starts a process, by glibc's posix_spawn(3): with
/// clone3, with clone where there is none, with other flags in other versions.
const SPAWN: &str =
    "clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD, ...}, 88)";

/// How a shell forks.
const FORK: &str = "clone(child_stack=NULL, \
                    flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, \
                    ...)";

/// How many variables the reader's environment has.
const VARIABLES: &str = "24";

/// Calls that give a PID.
const GIVE_PID: [&str; 12] = [
    "clone", "clone3", "fork", "getpgid", "getpgrp", "getpid", "getppid",
    "getsid", "gettid", "setsid", "vfork", "wait4",
];

/// Calls whose first argument is one.
const TAKE_PID: [&str; 6] =
    ["getpgid", "kill", "pidfd_open", "setpgid", "tgkill", "wait4"];

/// Whether strace is typed in that line, or the name of its file, `trace`.
pub fn is_typed(line: &str) -> bool {
    line.split_whitespace()
        .any(|word| matches!(word.trim_end_matches(';'), "strace" | "trace"))
}

/// Fails as skipped where nothing can be traced, or where the calls have
/// other names: aarch64 has no `mkdir`, only `mkdirat`.
pub fn must_be_possible(subject: &Subject) -> Result<()> {
    if ARCH != "x86_64" {
        return Err(skip("traces are those of x86-64"));
    }
    let options = ["-f", "-qq", "-o", "/dev/null", "/bin/sh", "-c", ":"];
    let output = subject.beside("strace", options).run()?;
    let said = output.err();
    match said.lines().next_back() {
        _ if output.status.success() => Ok(()),
        Some(line) if line.contains("suite: cannot start") => {
            Err(skip("needs strace"))
        }
        Some(line) => Err(skip(format!("nothing can be traced here: {line}"))),
        None => bail!("strace failed: {output}"),
    }
}

/// A line of strace: `[pid  1080] close(3) = 0`, or, with `-o`,
/// `1080  close(3) = 0`.
struct Line<'a> {
    pid: Option<i32>,
    is_in_file: bool,
    rest: &'a str,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let tail = line.strip_prefix("[pid ");
        let is_in_file = tail.is_none();
        let found = match tail {
            Some(tail) => tail.split_once("] "),
            None => line.split_once(' '),
        };
        let found = found.and_then(|(pid, rest)| {
            Some((pid.trim().parse().ok()?, rest.trim_start()))
        });
        let (pid, rest) =
            found.map_or((None, line), |(pid, rest)| (Some(pid), rest));
        let name = rest.strip_prefix("<... ").unwrap_or(rest);
        let end = name.find(|c: char| {
            !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_'
        });
        let next = &name[end?..];
        let is_call = end? > 0
            && (next.starts_with('(') || next.starts_with(" resumed>"));
        let is_event = ["+++ ", "--- "].iter().any(|it| rest.starts_with(it));
        (is_call || is_event).then_some(Self {
            pid,
            is_in_file: is_in_file && pid.is_some(),
            rest,
        })
    }
}

/// Joins the two halves of calls that were interrupted: what starts a process
/// or a program stands where it began, since that is what the others' lines
/// come from; what waits stands where it ended.
pub fn join(shown: &str) -> Vec<String> {
    let mut lines: Vec<Option<String>> = Vec::new();
    let mut begun: Vec<(Option<i32>, String, usize)> = Vec::new();
    for text in shown.lines() {
        let line = Line::of(text);
        if let (Some(line), Some(head)) = (&line, text.strip_suffix(UNFINISHED))
        {
            let name = line.rest.split('(').next().unwrap_or_default();
            begun.push((line.pid, name.to_owned(), lines.len()));
            lines.push(Some(head.to_owned()));
            continue;
        }
        let resumed = line.as_ref().and_then(|line| {
            let rest = line.rest.strip_prefix("<... ")?;
            let (name, tail) = rest.split_once(" resumed>")?;
            // The only process of all has no number in front of its lines.
            let found = [line.pid, None].iter().find_map(|pid| {
                begun.iter().position(|it| it.0 == *pid && it.1 == name)
            });
            let (_, name, at) = begun.remove(found?);
            Some((name, at, tail.trim_start().to_owned(), line))
        });
        let Some((name, at, tail, line)) = resumed else {
            lines.push(Some(text.to_owned()));
            continue;
        };
        let head = lines[at].as_deref().unwrap_or_default();
        let starts = ["clone", "clone3", "execve", "fork", "vfork"];
        if starts.contains(&&*name) {
            lines[at] = Some(format!("{head}{tail}"));
        } else {
            let prefix = &text[..text.len() - line.rest.len()];
            let head = Line::of(head).map_or(head, |line| line.rest);
            let whole = format!("{prefix}{head}{tail}");
            lines[at] = None;
            lines.push(Some(whole));
        }
    }
    for (.., at) in begun {
        let head = lines[at].get_or_insert_default();
        head.push_str(UNFINISHED);
    }
    lines.into_iter().flatten().collect()
}

/// Makes a line of strace what the reader sees; None when it is not one.
pub fn show(text: &str, transcript: &mut Transcript) -> Option<String> {
    let line = Line::of(text)?;
    let prefix = match line.pid.map(|pid| transcript.pid(pid)) {
        None => String::new(),
        Some(pid) if line.is_in_file => format!("{pid:<5} "),
        Some(pid) => format!("[pid {pid:>5}] "),
    };
    let call = line.rest.rsplit_once(" = ").and_then(|(call, result)| {
        let (name, args) = call.trim_end().split_once('(')?;
        Some((name, args.strip_suffix(')')?, result))
    });
    let Some((name, args, result)) = call else {
        return Some(prefix + &arguments("", line.rest, transcript));
    };
    let mut call = match starts(name, args) {
        Some(call) => call.to_owned(),
        None => format!("{name}({})", arguments(name, args, transcript)),
    };
    let mut result = match result.parse() {
        Ok(pid) if GIVE_PID.contains(&name) => transcript.pid(pid).to_string(),
        _ => arguments("", result, transcript),
    };
    let is_written = name == "write" && !result.starts_with('-');
    if let Some((counted, n)) = count(&call).filter(|_| is_written) {
        call = counted;
        result = n.to_string();
    }
    Some(format!("{:<width$} = {result}", prefix + &call, width = RESULT - 1))
}

/// The one form of what starts a process.
fn starts(name: &str, args: &str) -> Option<&'static str> {
    let is_clone = name.starts_with("clone");
    if args.contains("CLONE_NEW") || args.contains("CLONE_THREAD") {
        return None;
    }
    if name == "vfork" || is_clone && args.contains("CLONE_VFORK") {
        return Some(SPAWN);
    }
    (name == "fork" || is_clone).then_some(FORK)
}

/// Whether a siginfo up to here is about a process of the container.
fn has_number_inside(siginfo: &str) -> bool {
    let pid = siginfo.rsplit_once("si_pid=").map(|(_, tail)| tail);
    pid.is_some_and(|pid| pid.find(',') == Some(1))
}

/// Replaces what differs in the arguments of a call.
fn arguments(name: &str, args: &str, transcript: &mut Transcript) -> String {
    let mut shown = String::new();
    let mut rest = args;
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        let (head, tail) = rest.split_at(at);
        shown += head;
        let end = tail.find(|c: char| !c.is_ascii_alphanumeric());
        let (word, tail) = tail.split_at(end.unwrap_or(tail.len()));
        rest = tail;
        let is_quoted = head.ends_with('"') && tail.starts_with('"');
        let is_first = TAKE_PID.contains(&name) && shown.is_empty();
        let before = |text: &str| shown.ends_with(text);
        let number = word.parse::<i32>().ok();
        shown += &match number {
            _ if word.starts_with("0x") && word.len() > 9 => {
                transcript.address(word)
            }
            Some(pid)
                if is_first
                    || before("pid=")
                    || before("P_PID, ")
                    || before("/proc/") =>
            {
                transcript.pid(pid).to_string()
            }
            Some(pid) if is_quoted => {
                transcript.known_pid(pid).unwrap_or(pid).to_string()
            }
            // Whom it calls by a number inside is also root inside.
            Some(0) if before("si_uid=") && has_number_inside(&shown) => {
                word.to_owned()
            }
            Some(_) if before("si_uid=") => "1000".to_owned(),
            Some(_) if before("si_utime=") || before("si_stime=") => {
                "0".to_owned()
            }
            // Few are what the container gets.
            Some(10..) if before("/* ") && tail.starts_with(" vars") => {
                VARIABLES.to_owned()
            }
            _ => word.to_owned(),
        };
    }
    shown += rest;
    // What was measured to be more than 0 is also given in seconds.
    while let Some(at) = shown.find("time=0 /* ") {
        let (at, tail) = (at + 6, &shown[at + 6..]);
        let Some(end) = tail.find("*/") else { break };
        shown.replace_range(at..at + end + 2, "");
    }
    shown
}

/// `write(5, "0 1000 1", 8` with the number that the text has, and that.
fn count(call: &str) -> Option<(String, usize)> {
    let (head, _) = call.rsplit_once(", ")?;
    let (_, text) = head.strip_suffix('"')?.split_once('"')?;
    let mut n = 0;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        n += c.len_utf8();
        // \n is one byte, and so is \33.
        if c == '\\' && rest.next()?.is_digit(8) {
            let mut more = 2;
            while more > 0 && rest.next_if(|c| c.is_digit(8)).is_some() {
                more -= 1;
            }
        }
    }
    Some((format!("{head}, {n})"), n))
}

#[cfg(test)]
mod tests {
    use super::{count, join};

    #[test]
    fn halves_are_joined() {
        let shown = "clone3({flags=0}, 88 <unfinished ...>\n\
                     [pid 41] wait4(-1,  <unfinished ...>\n\
                     [pid 42] execve(\"/x\" <unfinished ...>\n\
                     [pid 40] <... clone3 resumed>)       = 42\n\
                     [pid 42] <... execve resumed>)       = 0\n\
                     hello\n\
                     [pid 41] <... wait4 resumed>[{}], 0) = 42\n\
                     [pid 41] pause( <unfinished ...>\n";
        assert_eq!(
            join(shown),
            [
                "clone3({flags=0}, 88)       = 42",
                "[pid 42] execve(\"/x\")       = 0",
                "hello",
                "[pid 41] wait4(-1, [{}], 0) = 42",
                "[pid 41] pause( <unfinished ...>",
            ]
        );
    }

    #[test]
    fn what_is_written_is_counted() {
        let counted = count(r#"write(5, "\33[0m \"a\"\n", 1)"#);
        let (call, n) = counted.unwrap();
        assert_eq!((&*call, n), (r#"write(5, "\33[0m \"a\"\n", 9)"#, 9));
        assert!(count(r#"write(5, "abc"..., 100)"#).is_none());
    }
}
