//! `cargo workshop rootfs`: a root file system to start a container in.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rootfs::{DEFAULT_LIMIT, Source, Summary};

use crate::terminal::say;

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

/// Makes it.
pub fn run(options: &Options) -> Result<ExitCode> {
    let dir = &options.dir;
    let summary = if is_free(dir)? {
        make(options, dir)
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
        rootfs::replace(dir, |new| make(options, new))
    }?;
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

fn make(options: &Options, dir: &Path) -> Result<Summary> {
    let limit = options.limit.saturating_mul(1 << 30);
    let unpack = |length, archive: &mut dyn Read| {
        let progress = progress(length);
        let archive = progress.wrap_read(archive);
        let summary = rootfs::unpack_at_most(limit, archive, dir);
        progress.finish_and_clear();
        summary
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
