//! What happens between fork and exec of a program under test: the groups,
//! limits, namespaces, terminal and ids that its caller gives it. std's
//! `Command` knows only some of them, and its `pre_exec` is not safe code.

use std::env::ArgsOs;
use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{self, Command};
use std::str::FromStr as _;
use std::{io, io::Write as _, iter};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{
    Gid, Uid, close, dup2_stderr, dup2_stdin, dup2_stdout, setgroups,
    setresgid, setresuid, setsid,
};

/// The first argument of a process that plays this part.
pub const PART: &str = "suite:start";

/// The number of the descriptor that a careless caller leaves open.
pub const LEAKED: i32 = 7;

/// One thing that the caller gives.
#[derive(Clone, Debug)]
pub enum Given {
    /// A member of this group.
    Group(PathBuf),
    /// These ids, and no supplementary groups.
    Ids(u32, u32),
    /// At most that many processes more than this user has now.
    Processes(u64),
    /// At most that many descriptors.
    Descriptors(u64),
    /// This signal blocked.
    Blocked(Signal),
    /// A descriptor of `/` left open.
    LeakedRoot,
    /// That descriptor closed.
    Closed(i32),
    /// No descriptor but stdin, stdout and stderr: cargo leaves some of its
    /// own open, and a trace shows the numbers of the next ones.
    NoOthers,
    /// A session of its own on this terminal.
    Terminal(PathBuf),
    /// The host name and mounts of that process.
    Outside(i32),
    /// Its parent as its tracer, see ptrace(2).
    Traced,
}

impl Given {
    /// As an argument, `key=value`.
    pub fn to_arg(&self) -> OsString {
        let (key, value) = match self {
            Self::Group(dir) => ("group", dir.clone().into_os_string()),
            Self::Ids(uid, gid) => ("ids", format!("{uid}:{gid}").into()),
            Self::Processes(n) => ("processes", n.to_string().into()),
            Self::Descriptors(n) => ("descriptors", n.to_string().into()),
            Self::Blocked(signal) => ("blocked", signal.as_str().into()),
            Self::LeakedRoot => ("leaked-root", OsString::new()),
            Self::Closed(n) => ("closed", n.to_string().into()),
            Self::NoOthers => ("no-others", OsString::new()),
            Self::Terminal(path) => ("terminal", path.clone().into()),
            Self::Outside(pid) => ("outside", pid.to_string().into()),
            Self::Traced => ("traced", OsString::new()),
        };
        let mut arg = OsString::from(key);
        arg.push("=");
        arg.push(value);
        arg
    }

    fn from_arg(arg: OsString) -> Result<Self, Box<dyn Error>> {
        let bytes = arg.into_vec();
        let at = bytes.iter().position(|b| *b == b'=').ok_or("no =")?;
        let value = OsString::from_vec(bytes[at + 1..].to_vec());
        let text = value.to_string_lossy().into_owned();
        Ok(match &bytes[..at] {
            b"group" => Self::Group(value.into()),
            b"ids" => {
                let (uid, gid) = text.split_once(':').ok_or("no :")?;
                Self::Ids(uid.parse()?, gid.parse()?)
            }
            b"processes" => Self::Processes(text.parse()?),
            b"descriptors" => Self::Descriptors(text.parse()?),
            b"blocked" => Self::Blocked(Signal::from_str(&text)?),
            b"leaked-root" => Self::LeakedRoot,
            b"closed" => Self::Closed(text.parse()?),
            b"no-others" => Self::NoOthers,
            b"terminal" => Self::Terminal(value.into()),
            b"outside" => Self::Outside(text.parse()?),
            b"traced" => Self::Traced,
            _ => return Err("unknown key".into()),
        })
    }

    fn take(&self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Group(dir) => fs::write(dir.join("cgroup.procs"), "0")?,
            Self::Ids(uid, gid) => {
                let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
                setgroups(&[])?;
                setresgid(gid, gid, gid)?;
                setresuid(uid, uid, uid)?;
            }
            Self::Processes(n) => {
                let (_, most) = getrlimit(Resource::RLIMIT_NPROC)?;
                let n = most.min(tasks_of_this_user() + n);
                setrlimit(Resource::RLIMIT_NPROC, n, n)?;
            }
            Self::Descriptors(n) => {
                setrlimit(Resource::RLIMIT_NOFILE, *n, *n)?;
            }
            Self::Blocked(signal) => {
                SigSet::from_iter(iter::once(*signal)).thread_block()?;
            }
            Self::LeakedRoot => {
                let n = fcntl(File::open("/")?, FcntlArg::F_DUPFD(LEAKED))?;
                debug_assert_eq!(n, LEAKED);
            }
            Self::Closed(n) => close(*n)?,
            Self::NoOthers => {
                let open: Vec<_> = fs::read_dir("/proc/self/fd")?
                    .filter_map(|fd| {
                        fd.ok()?.file_name().to_str()?.parse().ok()
                    })
                    .filter(|fd| *fd > 2)
                    .collect();
                // One of them was the folder itself.
                open.into_iter().for_each(|fd: i32| _ = close(fd));
            }
            Self::Terminal(path) => {
                setsid()?;
                // The first terminal that a session leader opens becomes its
                // controlling one.
                let tty =
                    OpenOptions::new().read(true).write(true).open(path)?;
                dup2_stdin(&tty)?;
                dup2_stdout(&tty)?;
                dup2_stderr(&tty)?;
                debug_assert!(tty.as_raw_fd() > 2);
            }
            Self::Outside(pid) => {
                for (kind, flag) in [
                    ("uts", CloneFlags::CLONE_NEWUTS),
                    ("mnt", CloneFlags::CLONE_NEWNS),
                ] {
                    let cwd = std::env::current_dir()?;
                    setns(File::open(format!("/proc/{pid}/ns/{kind}"))?, flag)?;
                    std::env::set_current_dir(cwd)?;
                }
            }
            Self::Traced => ptrace::traceme()?,
        }
        Ok(())
    }
}

/// What RLIMIT_NPROC counts: threads, see getrlimit(2).
fn tasks_of_this_user() -> u64 {
    let own = Uid::current().as_raw();
    let processes = crate::process::all().into_iter();
    let tasks = processes.filter_map(|process| {
        let tasks = fs::metadata(format!("/proc/{}/task", process.0)).ok()?;
        (tasks.uid() == own).then(|| tasks.nlink().saturating_sub(2))
    });
    tasks.sum()
}

/// `suite:start key=value… -- PROGRAM ARGS…`
pub fn main(args: std::iter::Skip<ArgsOs>) -> ! {
    let error = start(args);
    let _ = writeln!(io::stderr(), "suite: cannot start: {error}");
    process::exit(99);
}

fn start(mut args: impl Iterator<Item = OsString>) -> Box<dyn Error> {
    for arg in args.by_ref().take_while(|arg| arg.as_bytes() != b"--") {
        let shown = arg.to_string_lossy().into_owned();
        let taken = Given::from_arg(arg).and_then(|given| given.take());
        if let Err(error) = taken {
            return format!("{shown}: {error}").into();
        }
    }
    let Some(program) = args.next() else {
        return "no program".into();
    };
    // A suite that is itself killed leaves nothing behind. After the change
    // of ids, which takes this back.
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGKILL) {
        return error.into();
    }
    Command::new(program).args(args).exec().into()
}
