//! `cargo workshop rootfs`: a root file system to start a container in.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::errno::Errno;
use rootfs::{DEFAULT_LIMIT, Source, Summary};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::terminal::{errno, say};

/// What to make, and where.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo workshop rootfs                          from busybox, or without one
                                                 from this machine's programs
  cargo workshop rootfs --from alpine-minirootfs.tar.gz --dir alpine
  docker export some-container | cargo workshop rootfs --from - --force")]
pub struct Options {
    /// `busybox`, `host` (this machine's programs), a tar archive, plain or
    /// gzip, or `-` for one on stdin [default: busybox if there is one, else
    /// host]
    #[arg(long, value_name = "SOURCE")]
    from: Option<From>,
    /// Where to make it
    #[arg(long, value_name = "DIR", default_value = "fs")]
    dir: PathBuf,
    /// Replace the root that is there, if it is one that we made
    #[arg(long)]
    force: bool,
    /// The most that an archive may unpack to, in GiB
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT >> 30)]
    limit: u64,
}

/// Where a root comes from.
#[derive(Clone, Debug)]
enum From {
    Busybox,
    Host,
    Stdin,
    Archive(PathBuf),
}

impl FromStr for From {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "busybox" => Self::Busybox,
            "host" => Self::Host,
            "-" => Self::Stdin,
            path => Self::Archive(path.into()),
        })
    }
}

/// As a shell has it: 128 and SIGINT's number.
const INTERRUPTED: u8 = 130;

/// Makes it.
pub fn run(options: &Options) -> Result<ExitCode> {
    let dir = &options.dir;
    let is_over = catch_interrupts()?;
    let summary = if is_free(dir)? {
        make(options, dir, &is_over)
    } else if !rootfs::is_ours(dir) {
        bail!(
            "{} is there already and no root that we made: name another \
             folder with --dir, or remove it yourself",
            dir.display()
        );
    } else if !options.force {
        bail!("{} is there already: --force replaces it", dir.display());
    } else if let Some(mount) = mounted_below(dir)? {
        // What is removed must not be what is mounted there.
        bail!(
            "{} is mounted in {}: `umount {}` first",
            mount.kind,
            dir.display(),
            mount.point.display()
        );
    } else {
        rootfs::replace(dir, |new| make(options, new, &is_over))
    };
    if summary.is_err() && is_over.load(Ordering::SeqCst) {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let summary = summary?;
    say(format_args!("made {} from {summary}", dir.display()));
    Ok(ExitCode::SUCCESS)
}

/// Whether nothing is there, or an empty folder.
fn is_free(dir: &Path) -> Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(error)
            .with_context(|| format!("cannot look into {}", dir.display())),
    }
}

/// A mount on the root or below it, the last one first.
fn mounted_below(dir: &Path) -> Result<Option<doctor::mounts::Mount>> {
    let dir = dir.canonicalize()?;
    let mounts = doctor::mounts::all().into_iter().rev();
    Ok(mounts.into_iter().find(|mount| mount.point.starts_with(&dir)))
}

/// Ends in an orderly way at a Ctrl-C, which may be far into an archive: what
/// has been unpacked goes.
struct Interruptible<'a, R> {
    reader: R,
    is_over: &'a AtomicBool,
}

impl<R: Read> Read for Interruptible<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over.load(Ordering::SeqCst) {
            return Err(io::Error::other("interrupted"));
        }
        self.reader.read(buffer)
    }
}

/// Sets a flag at a Ctrl-C. A second one ends us at once: a pipe that we read
/// from may say nothing for long.
fn catch_interrupts() -> Result<Arc<AtomicBool>> {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&is_over))
            .and_then(|_| flag::register(signal, Arc::clone(&is_over)))
            .context("cannot catch signals")?;
    }
    Ok(is_over)
}

fn make(
    options: &Options,
    dir: &Path,
    is_over: &AtomicBool,
) -> Result<Summary> {
    let limit = options.limit.saturating_mul(1 << 30);
    let unpack = |length, archive: &mut dyn Read| {
        let progress = progress(length);
        let reader = progress.wrap_read(archive);
        let archive = Interruptible { reader, is_over };
        let summary = rootfs::unpack_at_most(limit, archive, dir);
        progress.finish_and_clear();
        summary.map_err(|error| {
            let too_large = |cause| errno(cause) == Some(Errno::EFBIG);
            match error.chain().any(too_large) {
                true => error.context(format!(
                    "more than {} GiB, --limit allows more",
                    options.limit
                )),
                false => error,
            }
        })
    };
    match &options.from {
        None => rootfs::build(dir),
        Some(From::Host) => rootfs::build_from(&Source::Host, dir),
        Some(From::Busybox) => match Source::choose() {
            Source::Host => bail!(
                "there is no busybox with a shell in PATH: install it (the \
                 package is busybox-static or busybox), or use --from host"
            ),
            busybox => rootfs::build_from(&busybox, dir),
        },
        Some(From::Stdin) if io::stdin().is_terminal() => bail!(
            "--from - reads an archive from stdin, which is a terminal: try \
             `docker export … | cargo workshop rootfs --from -`"
        ),
        Some(From::Stdin) => unpack(None, &mut io::stdin().lock()),
        Some(From::Archive(path)) => {
            let open = || format!("cannot open {}", path.display());
            let mut file = File::open(path).with_context(open)?;
            let length = file.metadata().with_context(open)?.len();
            unpack(Some(length), &mut file)
        }
    }
}

/// What is done by then needs no bar.
const MOMENT: Duration = Duration::from_millis(500);

/// A bar, or where nobody knows how much there is, a count. It shows on a
/// terminal only, and does so after a moment.
fn progress(length: Option<u64>) -> ProgressBar {
    let template = match length {
        Some(_) => "{wide_bar} {bytes} of {total_bytes}",
        None => "{spinner} {bytes}",
    };
    let bar =
        ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let later = bar.clone();
    thread::spawn(move || {
        thread::sleep(MOMENT);
        if !later.is_finished() {
            later.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
    });
    bar
}
