//! `cargo workshop vm`: a Linux kernel of one's own, without root.
//!
//! The launcher starts User-Mode Linux with this very program as its init,
//! and speaks with it over two serial lines, see [`line`]: no terminal and no
//! pipe of ours gets into the kernel's hands. A terminal is a new one inside,
//! with ours in raw mode in front of it.

mod furnish;
mod guard;
mod init;
mod job;
mod kernel;
mod line;
mod machine;
mod room;
mod session;
mod size;
mod terminal;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use doctor::around;
use nix::unistd::{Uid, User, getegid, getgroups};

use self::job::Job;
use self::machine::Machine;
use self::room::Room;
use self::size::parse_size;
use self::terminal::Terminal;
use crate::terminal::{BAD, note, styled};

/// What to run in it.
#[derive(Args)]
#[command(after_help = "\
It has this machine's files, with your rights to them: it is you who reads and
writes them, and root inside can do no more to them than you can. What is
written stays, but for /tmp and /run, which are its own. It has one processor,
no network but the loopback, and cgroup v2 with cpu, memory and pids. Its
system calls are slow: starting a program takes 20 times as long.

The kernel is User-Mode Linux, a program as any other: it needs no privilege,
no user namespace and no /dev/kvm. The machine is gone when CMD has ended, and
nothing of it is left. The exit status is that of CMD, or 128+N when signal N
ended it, or 1 when there was no machine.

Examples:
  cargo workshop vm
  cargo workshop vm target/debug/step07-cgroups run --pids-limit 5 sh
  cargo workshop vm --user target/debug/step07-cgroups run --cpus 0.5 sh
  cargo workshop vm sh -c 'grep cgroup /proc/mounts' | cat")]
pub struct Options {
    /// The machine's memory in bytes, or with k, m or g; the host gives it
    /// only as it is used
    #[arg(long, short, value_name = "SIZE", default_value = "1g")]
    #[arg(value_parser = parse_size)]
    memory: u64,
    /// Run CMD as an ordinary user, with a control group to divide: yourself,
    /// or if you are root, the owner of this directory or uid 1000
    #[arg(long, short)]
    user: bool,
    /// User-Mode Linux [default: linux.uml or linux in PATH]
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Not for you: which of our processes this is.
    #[arg(long, hide = true)]
    part: Option<Part>,
    /// The command and its arguments [default: bash without its start-up
    /// files, or sh]
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// Our processes beside the launcher.
#[derive(Clone, Copy, ValueEnum)]
enum Part {
    Guard,
    Init,
    Session,
}

/// Boots it.
pub fn run(options: &Options) -> Result<ExitCode> {
    match options.part {
        Some(Part::Guard) => guard::main(&options.command),
        Some(Part::Init) => init::main(&options.command),
        Some(Part::Session) => session::main(&options.command),
        None => launch(options),
    }
}

fn launch(options: &Options) -> Result<ExitCode> {
    if around::in_user_mode_linux() {
        bail!("this is such a machine already, and cannot boot another one");
    }
    let Some(kernel) = options.kernel.clone().or_else(kernel::find) else {
        note(format_args!(
            "{}: User-Mode Linux is not installed: there is no linux.uml in \
             PATH\nhint: {}",
            styled(BAD, "error"),
            kernel::MISSING
        ));
        return Ok(ExitCode::FAILURE);
    };
    let terminal = Terminal::ours();
    let job = job(options, terminal.as_ref())?;
    // Files that the user makes must be the user's on the host, too.
    let owner = match job.ids[..] {
        [uid, gid, ..] if Uid::effective().as_raw() != uid => Some((uid, gid)),
        _ => None,
    };
    let room = Room::find(options.memory)?;
    let machine =
        Machine::start(&kernel, room, &job, options.memory, owner, terminal)?;
    let greeting = "a kernel of your own: exit or Ctrl-D powers it off";
    let is_shell = options.command.is_empty();
    let status = machine.run(is_shell.then_some(greeting))?;
    Ok(ExitCode::from(status))
}

/// What to do inside.
fn job(options: &Options, terminal: Option<&Terminal>) -> Result<Job> {
    let directory =
        env::current_dir().context("the current directory is gone")?;
    let mut job = Job {
        ids: if options.user { user(&directory)? } else { Vec::new() },
        size: terminal.map(Terminal::size),
        errors_apart: !io::stderr().is_terminal(),
        directory,
        command: options.command.clone(),
        variables: Vec::new(),
    };
    let mut variables: BTreeMap<_, _> = env::vars_os()
        .filter(|(name, _)| !OF_THE_HOST.iter().any(|host| name == host))
        .collect();
    let mut set = |name: &str, value: OsString| {
        variables.insert(name.into(), value);
    };
    let uid = job.ids.first().copied().unwrap_or_default();
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let name = user.as_ref().map_or(uid.to_string(), |user| user.name.clone());
    if job.command.is_empty() {
        let bash = ["/bin/bash", "/usr/bin/bash"].map(Path::new);
        let bash = bash.into_iter().find(|path| path.exists());
        job.command = match bash {
            Some(bash) => vec![bash.into(), "--norc".into()],
            None => vec!["/bin/sh".into()],
        };
        let place = match (bash, uid) {
            (Some(_), _) => r":\w\$",
            (None, 0) => "#",
            (None, _) => "$",
        };
        set("PS1", format!("{name}@vm{place} ").into());
        // None but what the user has written should be in it.
        set("HISTFILE", OsString::new());
    }
    if uid != Uid::effective().as_raw() {
        set("USER", name.clone().into());
        set("LOGNAME", name.into());
        if uid != 0 {
            let home = user.map_or("/".into(), |user| user.dir);
            set("HOME", home.into());
        }
    }
    if uid == 0 {
        // Many ordinary users lack these.
        let path = env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<_> = env::split_paths(&path).collect();
        for folder in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/bin"] {
            let folder = PathBuf::from(folder);
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        set("PATH", env::join_paths(folders).unwrap_or(path));
    }
    job.variables = variables.into_iter().collect();
    Ok(job)
}

/// Variables that lead to what is not there in the machine.
const OF_THE_HOST: [&str; 8] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "SSH_AUTH_SOCK",
    "TMPDIR",
    "TMUX",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
];

/// The ordinary user to be, with the groups.
fn user(directory: &Path) -> Result<Vec<u32>> {
    let uid = Uid::effective();
    if !uid.is_root() {
        let mut ids = vec![uid.as_raw(), getegid().as_raw()];
        ids.extend(getgroups()?.iter().map(|group| group.as_raw()));
        return Ok(ids);
    }
    let metadata = directory
        .metadata()
        .with_context(|| format!("cannot look at {}", directory.display()))?;
    Ok(match (metadata.uid(), metadata.gid()) {
        (0, _) => vec![1000, 1000],
        (uid, gid) => vec![uid, gid],
    })
}
