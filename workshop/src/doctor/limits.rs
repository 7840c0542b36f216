//! A control group with limits, made as step07 makes one and gone again.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use doctor::{Stage, cgroup};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access, getppid};

/// The groups, and what was changed for them. Dropping it puts all back.
#[derive(Default)]
pub struct Limits {
    /// One in every hierarchy that has one of the controllers.
    pub groups: Vec<PathBuf>,
    changes: Vec<Change>,
}

/// What has to be undone, the latest first.
enum Change {
    Made(PathBuf),
    HandsDown(PathBuf, Vec<String>),
    /// We and our parent came from here.
    Left(PathBuf),
}

impl Limits {
    /// Makes the groups and sets their limits, before anything is in them.
    pub fn new(controllers: &[&str]) -> Result<Self> {
        let mut hierarchies: Vec<(&str, Vec<&str>)> = Vec::new();
        for name in controllers {
            let hierarchy = cgroup::hierarchy(name)
                .with_context(|| anyhow!("no group has {name}"))
                .context(Stage::FindCgroup)?;
            match hierarchies.iter_mut().find(|(it, _)| *it == hierarchy) {
                Some((_, names)) => names.push(name),
                None => hierarchies.push((hierarchy, vec![name])),
            }
        }
        let mut limits = Self::default();
        for (hierarchy, names) in hierarchies {
            limits.add(hierarchy, &names)?;
        }
        Ok(limits)
    }

    /// Opens the groups' `cgroup.procs`, to be written to by who joins.
    pub fn open(&self) -> Result<Vec<OwnedFd>> {
        let files = self.groups.iter().map(|group| group.join("cgroup.procs"));
        files
            .map(|file| {
                open(&file, OFlag::O_WRONLY, Mode::empty())
                    .with_context(|| Stage::Cgroup(file))
            })
            .collect()
    }

    fn add(&mut self, hierarchy: &str, controllers: &[&str]) -> Result<()> {
        let (mount, own) = cgroup::own(hierarchy)
            .context("it is not mounted here")
            .context(Stage::FindCgroup)?;
        let parent = match hierarchy {
            "" => self.parent(&mount.point, own, controllers)?,
            _ => own,
        };
        let group = self.make(&parent, "")?;
        for (file, text) in limits(hierarchy, controllers, &group) {
            write(&group.join(file), text)?;
        }
        self.groups.push(group);
        Ok(())
    }

    /// The group of version 2 to make ours in: our own if it can hand the
    /// controllers down, else the next one above that can; and at last our
    /// own after all, when we and our parent are alone in it and can move to
    /// a leaf.
    fn parent(
        &mut self,
        mount: &Path,
        own: PathBuf,
        controllers: &[&str],
    ) -> Result<PathBuf> {
        let Err(error) = self.hand_down(&own, controllers) else {
            return Ok(own);
        };
        for above in own.ancestors().skip(1) {
            let procs = above.join("cgroup.procs");
            if above.starts_with(mount)
                && access(&procs, AccessFlags::W_OK).is_ok()
                && self.hand_down(above, controllers).is_ok()
            {
                return Ok(above.to_owned());
            }
        }
        match self.leave(&own, controllers) {
            Ok(()) => Ok(own),
            Err(_) => Err(error),
        }
    }

    fn leave(&mut self, own: &Path, controllers: &[&str]) -> Result<()> {
        let leaf = self.make(own, "-leaf")?.join("cgroup.procs");
        self.changes.push(Change::Left(own.to_owned()));
        // Step07 has nobody to take along; the doctor has tried things in
        // processes of its own, and this is one of them.
        write(&leaf, &getppid().to_string())?;
        write(&leaf, "0")?;
        self.hand_down(own, controllers)
    }

    fn hand_down(&mut self, group: &Path, controllers: &[&str]) -> Result<()> {
        let file = group.join("cgroup.subtree_control");
        let before = fs::read_to_string(&file).unwrap_or_default();
        let before: Vec<_> = before.split_whitespace().collect();
        let signed = controllers.iter().map(|name| format!("+{name}"));
        write(&file, &signed.collect::<Vec<_>>().join(" "))?;
        let new = controllers.iter().filter(|name| !before.contains(name));
        let new = new.map(|name| format!("-{name}")).collect();
        self.changes.push(Change::HandsDown(file, new));
        Ok(())
    }

    fn make(&mut self, parent: &Path, suffix: &str) -> Result<PathBuf> {
        let group = parent.join(format!("doctor-{}{suffix}", process::id()));
        fs::create_dir(&group).context(Stage::Cgroup(group.clone()))?;
        self.changes.push(Change::Made(group.clone()));
        Ok(group)
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        while let Some(change) = self.changes.pop() {
            match change {
                Change::Made(group) => remove(&group),
                Change::HandsDown(file, names) => {
                    let _ = write(&file, &names.join(" "));
                }
                Change::Left(own) => {
                    let procs = own.join("cgroup.procs");
                    let _ = write(&procs, &getppid().to_string());
                    let _ = write(&procs, "0");
                }
            }
        }
    }
}

/// EBUSY while the kernel still buries the last process in it.
fn remove(group: &Path) {
    for _ in 0..100 {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                sleep(Duration::from_millis(10));
            }
            _ => return,
        }
    }
}

/// The files with step07's defaults, and half a processor.
fn limits(
    hierarchy: &str,
    controllers: &[&str],
    group: &Path,
) -> Vec<(&'static str, &'static str)> {
    const MEMORY: &str = "52428800";
    let version_2 = hierarchy.is_empty();
    let files = controllers.iter().flat_map(|name| match (*name, version_2) {
        ("pids", _) => vec![("pids.max", "10")],
        ("memory", true) => {
            vec![("memory.max", MEMORY), ("memory.swap.max", "0")]
        }
        ("memory", false) => vec![
            ("memory.limit_in_bytes", MEMORY),
            ("memory.memsw.limit_in_bytes", MEMORY),
        ],
        (_, true) => vec![("cpu.max", "50000 100000")],
        (_, false) => {
            vec![("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")]
        }
    });
    // A kernel may be unable to limit swap, which is all the same as long as
    // there is none.
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let no_swap = swaps.lines().count() < 2;
    let is_swap = |file: &str| file.contains("sw");
    files
        .filter(|(file, _)| {
            !(no_swap && is_swap(file) && !group.join(file).exists())
        })
        .collect()
}

/// They are read as a whole, so in one go.
fn write(path: &Path, text: &str) -> Result<()> {
    let file = File::options().write(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .context(Stage::Cgroup(path.to_owned()))
}
