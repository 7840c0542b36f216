//! A tracer, see ptrace(2): it lists the system calls with which a program
//! makes a container, and lets one of them fail without having been made.
//!
//! strace(1) can do that, too, but counts the calls of every process for
//! itself: with `-f` the inner half's first unshare(2) is out of its reach,
//! since the launcher's own first would fail before.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::process::{self, Command};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use syscalls::Sysno;

use crate::cgroup::hierarchies;
use crate::process::{Process, own};

/// The first argument of a process that plays this part.
pub const PART: &str = "suite:inject";

/// An flock(2) that gives a lock up is a call of its own.
pub const UNLOCK: &str = "flock to unlock";

/// How a line about the finished container begins.
const PICTURE: &str = "= ";

/// Which of a container's processes makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The outer half.
    Launcher,
    /// What is to be the inner half, between fork and exec.
    StartOfChild,
    /// The inner half.
    Child,
    /// What is to be the command, between fork and exec.
    StartOfCommand,
}

const ROLES: [(Role, &str); 4] = [
    (Role::Launcher, "launcher"),
    (Role::StartOfChild, "start of child"),
    (Role::Child, "child"),
    (Role::StartOfCommand, "start of command"),
];

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(ROLES[*self as usize].1)
    }
}

/// A system call, as one can find it again in another run.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Who makes it.
    pub role: Role,
    /// Such as `openat`.
    pub name: String,
    /// The first of that name is 1. They count from the banner on: what comes
    /// before is the dynamic loader's, and the runtime's.
    pub nth: usize,
    /// The texts among its arguments, and what a descriptor leads to.
    pub about: Vec<String>,
    /// Whether it makes a file that is not there.
    pub creates: bool,
    /// Whether the command has been started when it is made.
    pub is_late: bool,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { role, name, nth, about, .. } = self;
        write!(f, "{role}: {name} ({nth}) {about:?}")
    }
}

/// What a run was seen to do.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The calls in their order, or only the one that failed.
    pub calls: Vec<Call>,
    /// What the kernel says of the command when it begins: namespaces, ids,
    /// capabilities, signals, limits, mounts, descriptors, environment.
    pub picture: Vec<String>,
}

impl Trace {
    /// From what the tracer wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut trace = Self::default();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix(PICTURE) {
                trace.picture.push(line.to_owned());
                continue;
            }
            let mut fields = line.split('\t');
            let role = fields.next()?;
            trace.calls.push(Call {
                role: ROLES.iter().find(|it| it.1 == role)?.0,
                name: fields.next()?.to_owned(),
                nth: fields.next()?.parse().ok()?,
                creates: fields.next()? == "true",
                about: fields.map(str::to_owned).collect(),
                is_late: !trace.picture.is_empty(),
            });
        }
        Some(trace)
    }
}

/// Arguments for the part: where to write, and what is to fail with what.
pub fn args(file: &OsString, fault: Option<(&Call, Errno)>) -> Vec<OsString> {
    let mut args = vec![PART.into(), file.clone()];
    if let Some((call, errno)) = fault {
        let number = (errno as i32).to_string();
        let nth = call.nth.to_string();
        let fault = [call.role.to_string(), call.name.clone(), nth, number];
        args.extend(fault.map(OsString::from));
    }
    args.push("--".into());
    args
}

/// `suite:inject FILE [ROLE NAME NTH ERRNO] -- PROGRAM ARGS…`, where the
/// program lets its parent trace it and then execs the one under test.
pub fn main(args: std::iter::Skip<std::env::ArgsOs>) -> ! {
    let status = Tracer::start(args).and_then(Tracer::run);
    let status = status.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "suite: cannot trace: {error}");
        99
    });
    process::exit(status);
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Tracer {
    file: File,
    fault: Option<(Role, String, usize, Errno)>,
    launcher: Pid,
    traced: BTreeMap<Pid, Traced>,
    /// Stopped before their parents said that they have made them.
    early: BTreeSet<Pid>,
    counts: BTreeMap<(Role, String), usize>,
    has_failed: bool,
    status: i32,
}

struct Traced {
    role: Role,
    has_begun: bool,
    answer: Option<Errno>,
}

impl Tracer {
    fn start(mut args: impl Iterator<Item = OsString>) -> Result<Self> {
        let file = File::create(args.next().ok_or("no file")?)?;
        let mut texts = Vec::new();
        for arg in args.by_ref().take_while(|arg| arg != "--") {
            texts.push(arg.to_string_lossy().into_owned());
        }
        let fault = match &texts[..] {
            [] => None,
            [role, name, nth, errno] => {
                let role = ROLES.iter().find(|it| it.1 == role);
                let role = role.ok_or("no such role")?.0;
                let errno = Errno::from_raw(errno.parse()?);
                Some((role, name.clone(), nth.parse()?, errno))
            }
            _ => return Err("not a fault".into()),
        };
        let program = args.next().ok_or("no program")?;
        let child = Command::new(program).args(args).spawn()?;
        let launcher = Pid::from_raw(i32::try_from(child.id())?);
        let traced = Traced::new(Role::Launcher);
        Ok(Self {
            file,
            fault,
            launcher,
            traced: BTreeMap::from([(launcher, traced)]),
            early: BTreeSet::new(),
            counts: BTreeMap::new(),
            has_failed: false,
            status: 0,
        })
    }

    /// Until there is nobody left to trace.
    fn run(mut self) -> Result<i32> {
        let first = waitpid(self.launcher, None)?;
        if let WaitStatus::Exited(_, status) = first {
            return Ok(status);
        }
        let options = Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEVFORK;
        ptrace::setoptions(self.launcher, options)?;
        self.go_on(self.launcher, None)?;
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(status) => match self.stopped(status) {
                    // Somebody was killed meanwhile.
                    Err(error)
                        if error.downcast_ref() == Some(&Errno::ESRCH) => {}
                    done => done?,
                },
                Err(Errno::ECHILD) => return Ok(self.status),
                Err(_) => {}
            }
        }
    }

    fn stopped(&mut self, status: WaitStatus) -> Result<()> {
        match status {
            WaitStatus::Exited(pid, status) => self.ended(pid, status),
            WaitStatus::Signaled(pid, signal, _) => {
                self.ended(pid, 128 + signal as i32);
            }
            WaitStatus::PtraceSyscall(pid) => {
                self.called(pid)?;
                self.go_on(pid, None)?;
            }
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => {
                self.executed(pid)?;
            }
            WaitStatus::PtraceEvent(pid, ..) => {
                let made = Pid::from_raw(ptrace::getevent(pid)? as i32);
                let role = match self.traced.get(&pid).map(|it| it.role) {
                    Some(Role::Launcher) => Role::StartOfChild,
                    _ => Role::StartOfCommand,
                };
                self.traced.insert(made, Traced::new(role));
                if self.early.remove(&made) {
                    self.go_on(made, None)?;
                }
                self.go_on(pid, None)?;
            }
            // How a process that is traced from its fork on begins.
            WaitStatus::Stopped(pid, Signal::SIGSTOP) => {
                match self.traced.contains_key(&pid) {
                    true => self.go_on(pid, None)?,
                    false => _ = self.early.insert(pid),
                }
            }
            WaitStatus::Stopped(pid, signal) => {
                self.go_on(pid, Some(signal))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn ended(&mut self, pid: Pid, status: i32) {
        self.traced.remove(&pid);
        if pid == self.launcher {
            self.status = status;
        }
    }

    /// Up to the next call, of those whose calls are looked at.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) -> nix::Result<()> {
        let role = self.traced.get(&pid).map(|it| it.role);
        let is_watched = match &self.fault {
            Some(fault) => !self.has_failed && Some(fault.0) == role,
            None => true,
        };
        match is_watched {
            true => ptrace::syscall(pid, signal),
            false => ptrace::cont(pid, signal),
        }
    }

    /// A call begins, or ends.
    fn called(&mut self, pid: Pid) -> Result<()> {
        let Some(traced) = self.traced.get_mut(&pid) else { return Ok(()) };
        if let Some(errno) = traced.answer.take() {
            self.has_failed = true;
            return Ok(machine::answer(pid, errno)?);
        }
        let Some((number, args)) = machine::entered(pid)? else {
            return Ok(());
        };
        let mut name = Sysno::new(number).map_or("?", |it| it.name());
        if name == "flock" && args[1] == libc::LOCK_UN as u64 {
            name = UNLOCK;
        }
        traced.has_begun |= name == "write" && args[0] == 2;
        if !traced.has_begun {
            return Ok(());
        }
        let role = traced.role;
        let count = self.counts.entry((role, name.to_owned())).or_default();
        *count += 1;
        if let Some((of, called, nth, errno)) = &self.fault {
            if (*of, &**called, *nth) != (role, name, *count) {
                return Ok(());
            }
            traced.answer = Some(*errno);
            machine::skip(pid)?;
        }
        let flags = match name {
            "open" | "openat" => args[usize::from(name == "openat") + 1],
            _ => 0,
        };
        let creates = flags & libc::O_CREAT as u64 != 0;
        let mut line = format!("{role}\t{name}\t{count}\t{creates}");
        for text in about(pid, name, &args) {
            line += &format!("\t{text}");
        }
        writeln!(self.file, "{line}")?;
        Ok(())
    }

    /// The next program: the inner half, the command, or one that the launcher
    /// needs itself.
    fn executed(&mut self, pid: Pid) -> Result<()> {
        let exe = |pid| fs::read_link(format!("/proc/{pid}/exe"));
        let traced = self.traced.get_mut(&pid).ok_or(Errno::ESRCH)?;
        if traced.role == Role::StartOfChild && exe(pid)? == exe(self.launcher)?
        {
            *traced = Traced::new(Role::Child);
            return Ok(self.go_on(pid, None)?);
        }
        // step01's inner half becomes the command itself.
        if matches!(traced.role, Role::StartOfCommand | Role::Child) {
            for line in picture(Process(pid.as_raw()), self.launcher) {
                writeln!(self.file, "{PICTURE}{line}")?;
            }
        }
        self.traced.remove(&pid);
        Ok(ptrace::detach(pid, None)?)
    }
}

impl Traced {
    fn new(role: Role) -> Self {
        // The others begin with what the C library does there.
        let is_half = matches!(role, Role::Launcher | Role::Child);
        Self { role, has_begun: !is_half, answer: None }
    }
}

/// What is another on another processor.
#[cfg(target_arch = "x86_64")]
mod machine {
    use nix::Result;
    use nix::errno::Errno;
    use nix::libc;
    use nix::sys::ptrace::{getregs, setregs};
    use nix::unistd::Pid;

    pub const IS_KNOWN: bool = true;

    /// Number and arguments of the call that begins; None when one ends.
    pub fn entered(pid: Pid) -> Result<Option<(usize, [u64; 6])>> {
        let it = getregs(pid)?;
        let args = [it.rdi, it.rsi, it.rdx, it.r10, it.r8, it.r9];
        // The answer until there is one; PTRACE_GET_SYSCALL_INFO would know,
        // but not in User-Mode Linux.
        let has_begun = it.rax == -i64::from(libc::ENOSYS) as u64;
        Ok(has_begun.then_some((it.orig_rax as usize, args)))
    }

    /// Makes it a call that there is not.
    pub fn skip(pid: Pid) -> Result<()> {
        let mut registers = getregs(pid)?;
        registers.orig_rax = u64::MAX;
        setregs(pid, registers)
    }

    /// Makes that the answer to the call that ends.
    pub fn answer(pid: Pid, errno: Errno) -> Result<()> {
        let mut registers = getregs(pid)?;
        registers.rax = -i64::from(errno as i32) as u64;
        setregs(pid, registers)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod machine {
    use nix::Result;
    use nix::errno::Errno;
    use nix::unistd::Pid;

    pub const IS_KNOWN: bool = false;

    pub fn entered(_: Pid) -> Result<Option<(usize, [u64; 6])>> {
        Err(Errno::ENOSYS)
    }

    pub fn skip(_: Pid) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    pub fn answer(_: Pid, _: Errno) -> Result<()> {
        Err(Errno::ENOSYS)
    }
}

pub use machine::IS_KNOWN;

/// What a call is about: whatever among its arguments leads to a text.
fn about(pid: Pid, name: &str, args: &[u64]) -> Vec<String> {
    let mut texts = Vec::new();
    let link = fs::read_link(format!("/proc/{pid}/fd/{}", args[0]));
    // NULL is no descriptor.
    if let (1.., Ok(link)) = (args[0], link) {
        texts.push(link.to_string_lossy().into_owned());
    }
    let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else {
        return texts;
    };
    for address in args.iter().filter(|address| **address > 0xffff) {
        let mut bytes = [0; 256];
        let length = memory.read_at(&mut bytes, *address).unwrap_or(0);
        let mut text = &bytes[..length];
        if name == "write" {
            text = &text[..length.min(args[2] as usize)];
        }
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let is_text = |byte: &u8| (b' '..=b'~').contains(byte);
        if !text.is_empty() && text.iter().all(is_text) {
            texts.push(String::from_utf8_lossy(text).into_owned());
        }
    }
    texts.truncate(2);
    texts
}

/// What the kernel says of a process, and what it says of its parent, without
/// what differs from one run to another.
fn picture(process: Process, launcher: Pid) -> Vec<String> {
    let file = |name: &str| process.read(name).unwrap_or_default();
    let mut lines = Vec::new();
    let status = |process: Process, keys: &[&str], lines: &mut Vec<_>| {
        for line in process.read("status").unwrap_or_default().lines() {
            if keys.iter().any(|key| line.starts_with(key)) {
                lines.push(line.to_owned());
            }
        }
    };
    let ids = ["Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Cap"];
    let signals = ["SigBlk", "SigIgn", "SigCgt"];
    status(process, &ids, &mut lines);
    status(process, &signals, &mut lines);
    if let Some(parent) = process.parent() {
        status(parent, &ids, &mut lines);
        status(parent, &["SigIgn", "SigCgt"], &mut lines);
        lines.extend(descriptors(parent));
    }
    lines.extend(descriptors(process));
    lines.extend(file("environ").split('\0').map(str::to_owned));
    lines.extend(["uid_map", "gid_map", "setgroups"].map(file));
    lines.extend(file("limits").lines().map(str::to_owned));
    for link in ["cwd", "root"] {
        let target = fs::read_link(format!("/proc/{}/{link}", process.0));
        lines.push(format!("{link} {:?}", target.unwrap_or_default()));
    }
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let of = |process: Process| process.namespace(kind).ok();
        let is_own = of(process) != of(own());
        lines.push(format!("{kind} namespace of its own: {is_own}"));
    }
    for line in file("mountinfo").lines() {
        // Number, parent's number and device are others each time.
        let fields = line.split(' ').skip(3);
        // So are those of groups of peers.
        let fields = fields.map(|it| it.trim_end_matches(char::is_numeric));
        lines.push(fields.collect::<Vec<_>>().join(" "));
    }
    for hierarchy in hierarchies().unwrap_or_default() {
        let Ok(group) = hierarchy.group_of(process) else { continue };
        // Not where it is: there may be more than one place for it.
        let name = group.file_name().unwrap_or_default().to_string_lossy();
        lines.push(name.trim_end_matches(&launcher.to_string()).to_owned());
        for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let ends = ["max", "limit_in_bytes", "cfs_quota_us"];
            let name = name.to_string_lossy();
            if ends.iter().any(|end| name.ends_with(end)) {
                let text = fs::read_to_string(entry.path());
                lines.push(format!("{name} {:?}", text.unwrap_or_default()));
            }
        }
    }
    let is_one_line = |line: &mut String| *line = line.replace('\n', " ");
    lines.iter_mut().for_each(is_one_line);
    lines
}

/// `0 /dev/null`, `1 pipe:`
fn descriptors(process: Process) -> Vec<String> {
    let open = fs::read_dir(format!("/proc/{}/fd", process.0));
    let mut lines: Vec<_> = open
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let target = target.as_os_str().as_bytes();
            let target = String::from_utf8_lossy(target).into_owned();
            let kind = target.split('[').next().unwrap_or_default();
            format!("{} {kind}", entry.file_name().to_string_lossy())
        })
        .collect();
    lines.sort();
    lines
}
