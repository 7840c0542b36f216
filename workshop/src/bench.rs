//! `cargo workshop bench`: our programs, and what people would pick instead,
//! measured side by side in one run on one machine.
//!
//! hyperfine has the stopwatch. The measuring is done by a process of its own,
//! in a mount table and a tree of control groups of its own where it may, so
//! that of what runtimes leave when they are interrupted nothing stays.

mod contestant;
mod crowd;
mod footprint;
mod learner;
mod measure;
mod report;
mod room;
mod trace;

use std::env;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use nix::sys::prctl;
use serde_json::Value;
use suite::cgroup::Pen;
use suite::process::{self, Process};

use self::room::Room;
use crate::check::Watch;
use crate::terminal::{BAD, note, say, styled};

/// What to measure.
#[derive(Args)]
#[command(after_help = "\
Measured are the time from start to end of `run /bin/true`, the memory while
the container sleeps, the system calls, and what 1 to 1,000 containers cost,
in the release profile. Who is measured besides us: a C program that does no
more than it must, unshare, bubblewrap, crun, runc, podman, and the container
in Go that the steps go back to. Who is not installed is left out by name.

Times on a busy machine say little; ratios say more, since everybody takes
turns. hyperfine has the stopwatch: `apt install hyperfine` or `cargo install
hyperfine`.

Examples:
  cargo workshop bench --quick       in a minute, once everything is compiled
  cargo workshop bench --save        in five, and writes BENCHMARKS.md
  cargo workshop bench --loop        how long a learner waits, for what")]
pub struct Options {
    /// Fewer rounds, and no more than 100 containers
    #[arg(long)]
    quick: bool,
    /// Measure the learner's loop instead: builds, tests, check and the book
    #[arg(long = "loop", conflicts_with = "quick")]
    learner: bool,
    /// Write the results to BENCHMARKS.md and workshop/bench/last.json
    #[arg(long, conflicts_with = "quick")]
    save: bool,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    /// Not for you: which of our processes this is.
    #[arg(long, hide = true)]
    part: Option<Part>,
    /// Not for you: where the programs are that a part needs.
    #[arg(long, hide = true, requires = "part")]
    room: Option<PathBuf>,
    /// Not for you: of how many a part consists.
    #[arg(long, hide = true, default_value_t = 1)]
    number: usize,
    #[arg(hide = true, trailing_var_arg = true, requires = "part")]
    command: Vec<String>,
}

/// Our processes beside the first.
#[derive(Clone, Copy, ValueEnum)]
enum Part {
    Measure,
    Crowd,
}

/// As a shell has it: 128 and SIGINT's number.
const INTERRUPTED: u8 = 130;

/// Measures.
pub fn run(options: &Options) -> Result<ExitCode> {
    match (options.part, &options.room) {
        (Some(Part::Measure), Some(room)) => {
            let found = measure::run(&Room::at(room), options.quick)?;
            say(found);
            Ok(ExitCode::SUCCESS)
        }
        (Some(Part::Crowd), _) => {
            crowd::run(options.number, &options.command)?;
            Ok(ExitCode::SUCCESS)
        }
        _ => all(options),
    }
}

fn all(options: &Options) -> Result<ExitCode> {
    if room::find("hyperfine").is_none() {
        note(format_args!(
            "{}: hyperfine, which has the stopwatch, is not in PATH\n\
             hint: `sudo apt install hyperfine` (Debian and Ubuntu), or \
             `cargo install hyperfine`",
            styled(BAD, "error")
        ));
        return Ok(ExitCode::FAILURE);
    }
    let watch = Watch::begin()?;
    prctl::set_child_subreaper(true)?;
    let result = if options.learner {
        learner::run(&watch)
    } else {
        containers(options, &watch)
    };
    // Whoever was interrupted may have left a process, and that a mount.
    process::sweep();
    if watch.is_over() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let mut found = result?;
    found["machine"] = report::machine();
    if options.json {
        say(&found);
    } else {
        report::show(&found);
    }
    if options.save {
        report::save(&found)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn containers(options: &Options, watch: &Watch) -> Result<Value> {
    let room = Room::furnish(watch)?;
    let pen = Pen::make();
    let mut command = Command::new("/proc/self/exe");
    command.args(["bench", "--part", "measure", "--room"]).arg(room.path());
    if options.quick {
        command.arg("--quick");
    }
    command.current_dir(room.path()).stdin(Stdio::null());
    // What cargo sets makes loaders look for libraries in more folders.
    for (name, _) in env::vars_os() {
        if !["PATH", "HOME"].iter().any(|kept| name == *kept) {
            command.env_remove(name);
        }
    }
    command.env("TMPDIR", room.path()).stdout(Stdio::piped());
    let result = hear(command, watch);
    process::sweep();
    drop(pen);
    result
}

/// Runs a part, which ends with us, and takes what it has found.
fn hear(mut command: Command, watch: &Watch) -> Result<Value> {
    let mut child = command.spawn().context("cannot start ourselves")?;
    watch.guard(Some(guarded(&child)?));
    let mut text = String::new();
    let read = child.stdout.take().context("no stdout")?;
    let read = { read }.read_to_string(&mut text);
    let status = child.wait().context("cannot wait");
    watch.guard(None);
    read.context("cannot read what was measured")?;
    if !status?.success() {
        bail!("nothing was measured");
    }
    serde_json::from_str(&text).context("cannot read what was measured")
}

fn guarded(child: &Child) -> Result<Process> {
    Ok(Process(i32::try_from(child.id())?))
}
