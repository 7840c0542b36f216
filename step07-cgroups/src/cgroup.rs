//! The container's share of the machine: control groups, see cgroups(7).
//!
//! A limit belongs to a *controller*: pids, memory, cpu. In version 2 all of
//! them hang on one tree of groups, in version 1 each may have its own, and
//! hybrid hosts have both. So each controller is looked up for itself, and
//! never under a fixed path.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, value_parser};
use doctor::Stage;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access};

/// The most that a container may use.
#[derive(Args)]
pub struct Limits {
    /// Processes in the container, PID 1 among them
    #[arg(long, global = true, value_name = "N", default_value = "10")]
    #[arg(value_parser = value_parser!(u64).range(1..=PID_MAX_LIMIT))]
    pids_limit: u64,
    /// Memory in bytes, or with k, m or g; no swap comes on top
    #[arg(short, long, global = true, value_name = "SIZE")]
    #[arg(default_value = "50m", value_parser = parse_size)]
    memory: u64,
    /// Processors, such as 0.5 for half of one [default: no limit]
    #[arg(long, global = true, value_name = "N", value_parser = parse_cpus)]
    cpus: Option<f64>,
}

/// More processes no kernel can number, see /proc/sys/kernel/pid_max, proc(5).
const PID_MAX_LIMIT: u64 = 4_194_304;

/// A limit on processors is a time to run, in microseconds, in every period.
const PERIOD: f64 = 100_000.0;

/// Bytes from `4096`, `50m` or `1G`, in powers of 1,024.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &*text[digits.len()..].to_ascii_lowercase() {
        "" | "b" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return Err("the unit is b, k, m or g".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}"))?;
    let bytes = number.checked_mul(unit).filter(|n| *n <= i64::MAX as u64);
    match bytes {
        Some(0) => Err("nothing runs in no memory".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("that is more than a machine can have".to_owned()),
    }
}

/// A number of processors. The kernel refuses less than 1 ms in a period; of
/// ours, 100 ms, that is 0.01.
fn parse_cpus(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(cpus) if (0.01..=8192.0).contains(&cpus) => Ok(cpus),
        Ok(_) => Err("not between 0.01 and 8192".to_owned()),
        Err(error) => Err(format!("{error}")),
    }
}

/// The container's group in every hierarchy that has one of its controllers.
/// Dropping it removes them.
pub struct Cgroup {
    groups: Vec<Group>,
    /// Where the launcher is meanwhile; it can go back when `groups` are gone.
    _leaf: Option<Leaf>,
    memory: u64,
}

impl Cgroup {
    // ANCHOR: new
    /// Makes the groups and sets their limits, before anything is in them.
    ///
    /// Fails with EACCES or EROFS where we may not write, with EBUSY where
    /// no group can hand controllers down, and with ENOENT or EINVAL when a
    /// limit cannot be set.
    pub fn new(limits: &Limits) -> Result<Self> {
        let memory = limits.memory;
        let mut cgroup = Self { groups: vec![], _leaf: None, memory };
        let read = |file| fs::read_to_string(file).context(Stage::FindCgroup);
        let groups = read("/proc/self/cgroup")?;
        let mounts = read("/proc/self/mountinfo")?;
        let mut hierarchies: Vec<(Hierarchy, Vec<&'static str>)> = vec![];
        for name in ["pids", "memory", "cpu"] {
            let found = Hierarchy::of(name, &groups, &mounts);
            let found = found.context(Stage::FindCgroup);
            if name == "cpu" && limits.cpus.is_none() {
                // Not asked for; a launcher before us may have been.
                let _ = found.map(|hierarchy| sweep(&hierarchy.own));
                continue;
            }
            let found = found?;
            match hierarchies.iter_mut().find(|(known, _)| *known == found) {
                Some((_, names)) => names.push(name),
                None => hierarchies.push((found, vec![name])),
            }
        }
        for (hierarchy, controllers) in hierarchies {
            let version = hierarchy.version;
            let parent = match version {
                1 => hierarchy.own,
                _ => hierarchy.parent(&controllers, &mut cgroup._leaf)?,
            };
            // In the list before a limit is set: if that fails, it is removed.
            cgroup.groups.push(Group::new(&parent, "")?);
            let folder = &cgroup.groups[cgroup.groups.len() - 1].folder;
            for controller in controllers {
                limit(folder, version, controller, limits)?;
            }
        }
        Ok(cgroup)
    }
    // ANCHOR_END: new

    // ANCHOR: open
    /// Opens the groups' `cgroup.procs` for `child`, which joins by writing to
    /// them. A name among its arguments would tell the container where its
    /// groups are, so it gets numbers, and the files stay open across exec.
    pub fn open(&self) -> Result<Vec<OwnedFd>> {
        let open_one = |group: &Group| {
            let file = group.folder.join("cgroup.procs");
            open(&file, OFlag::O_WRONLY, Mode::empty())
                .with_context(|| Stage::Cgroup(file))
        };
        self.groups.iter().map(open_one).collect()
    }
    // ANCHOR_END: open

    // ANCHOR: report_oom
    /// Says so when the kernel has killed for want of memory. It tells nobody
    /// but the group; the process just ends, by SIGKILL.
    pub fn report_oom(&self) {
        // Version 2 counts in the one file, version 1 in the other.
        let files = ["memory.events", "memory.oom_control"];
        let files = self
            .groups
            .iter()
            .flat_map(|group| files.map(|file| group.folder.join(file)));
        let killed = files.flat_map(fs::read_to_string).any(|text| {
            let kills = text.lines().find_map(|l| l.strip_prefix("oom_kill "));
            kills.is_some_and(|number| number != "0")
        });
        if killed {
            let (name, limit) = (env!("CARGO_PKG_NAME"), size(self.memory));
            let line = format!("{name}: killed: out of memory (limit {limit})");
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
    // ANCHOR_END: report_oom
}

// ANCHOR: limit
/// Sets the limit that `controller` has to keep, in the files of `version`.
fn limit(
    folder: &Path,
    version: u8,
    controller: &str,
    limits: &Limits,
) -> Result<()> {
    let memory = limits.memory.to_string();
    let quota = limits.cpus.map_or(0.0, |cpus| (cpus * PERIOD).round());
    match (controller, version) {
        ("pids", _) => {
            write(folder, "pids.max", &limits.pids_limit.to_string())
        }
        // Without a limit on swap, what is too much would just move there. In
        // version 1 it is on both together, in version 2 on swap alone.
        ("memory", 1) => {
            write(folder, "memory.limit_in_bytes", &memory)?;
            limit_swap(folder, "memory.memsw.limit_in_bytes", &memory)
        }
        ("memory", _) => {
            write(folder, "memory.max", &memory)?;
            limit_swap(folder, "memory.swap.max", "0")
        }
        (_, 1) => {
            write(folder, "cpu.cfs_period_us", &PERIOD.to_string())?;
            write(folder, "cpu.cfs_quota_us", &quota.to_string())
        }
        (_, _) => write(folder, "cpu.max", &format!("{quota} {PERIOD}")),
    }
}
// ANCHOR_END: limit

/// Limits swap. A kernel may be unable to, which is all the same as long as
/// there is none.
fn limit_swap(folder: &Path, file: &str, limit: &str) -> Result<()> {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let is_missing = matches!(folder.join(file).try_exists(), Ok(false));
    if is_missing && swaps.lines().count() < 2 {
        return Ok(());
    }
    write(folder, file, limit)
}

/// Writes one of a group's files. They are read as a whole, so in one go.
fn write(folder: &Path, file: &str, text: &str) -> Result<()> {
    let path = folder.join(file);
    let file = File::options().write(true).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .context(Stage::Cgroup(path))
}

/// A limit as one would say it: 52,428,800 bytes are 50 MiB.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes % (1 << shift) == 0) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} B"),
    }
}

/// A tree of groups, and our own place in it.
#[derive(PartialEq)]
struct Hierarchy {
    version: u8,
    /// Where the tree is mounted, usually below `/sys/fs/cgroup`.
    mount: PathBuf,
    /// The group that we are in.
    own: PathBuf,
}

impl Hierarchy {
    // ANCHOR: of
    /// The hierarchy that has `controller`: what `/proc/self/cgroup` says of
    /// us, found in the file system with the help of `/proc/self/mountinfo`.
    fn of(controller: &str, groups: &str, mounts: &str) -> Result<Self> {
        let has = |names: &str| names.split(',').any(|name| name == controller);
        // Version 1 is `4:memory:/user.slice`, version 2 `0::/user.slice`.
        let groups = groups.lines().filter_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            Some((if number == "0" { 2 } else { 1 }, names, path))
        });
        // A controller is in version 2 unless version 1 has it.
        let (version, _, path) = groups
            .filter(|(version, names, _)| *version == 2 || has(names))
            .min_by_key(|(version, _, _)| *version)
            .with_context(|| format!("no group has {controller}"))?;
        for line in mounts.lines() {
            // 38 31 0:35 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
            let (mount, tree) = line.split_once(" - ").unwrap_or_default();
            let ours = match tree.split(' ').collect::<Vec<_>>()[..] {
                ["cgroup", _, options] => version == 1 && has(options),
                ["cgroup2", ..] => version == 2,
                _ => false,
            };
            // Of the tree, a container may have only what is below `root`.
            let mut fields = mount.split(' ').skip(3);
            let root = fields.next().unwrap_or_default();
            let mount = fields.next().unwrap_or_default();
            let below = Path::new(path).strip_prefix(root);
            if let (true, Ok(below)) = (ours, below) {
                let mount = PathBuf::from(mount.replace("\\040", " "));
                return Ok(Self { version, own: mount.join(below), mount });
            }
        }
        bail!("its group {path:?} is not mounted here")
    }
    // ANCHOR_END: of

    // ANCHOR: parent
    /// The group of version 2 to make ours in: one that hands `controllers`
    /// down to those below it, now or from now on.
    ///
    /// A group but the topmost has processes or hands memory down, never both,
    /// and our own has one process at least: us. So the next one above that
    /// can has to serve, although the limits of our own are then not the
    /// container's. Where there is none we move to a leaf below our own, if
    /// nobody else is in it. It comes last because of kill -9: a group that
    /// hands memory down can no longer be entered, so no next run would get
    /// there to sweep.
    fn parent(
        self,
        controllers: &[&'static str],
        leaf: &mut Option<Leaf>,
    ) -> Result<PathBuf> {
        let Err(error) = hand_down(&self.own, '+', controllers) else {
            return Ok(self.own);
        };
        let mut above = self.own.ancestors().skip(1);
        let above = above.find(|above| {
            let procs = above.join("cgroup.procs");
            above.starts_with(&self.mount)
                && access(&procs, AccessFlags::W_OK).is_ok()
                && hand_down(above, '+', controllers).is_ok()
        });
        if let Some(above) = above {
            return Ok(above.to_owned());
        }
        *leaf = Some(Leaf::enter(&self.own, controllers).map_err(|_| error)?);
        Ok(self.own)
    }
    // ANCHOR_END: parent
}

/// Lets a group of version 2 hand controllers down (`+`), or no more (`-`).
/// Fails with EBUSY when there are processes in it.
fn hand_down(own: &Path, sign: char, controllers: &[&str]) -> Result<()> {
    let signed = controllers.iter().map(|name| format!("{sign}{name}"));
    let line = signed.collect::<Vec<_>>().join(" ");
    write(own, "cgroup.subtree_control", &line)
}

/// A group below our own for the launcher, see [`Hierarchy::parent`].
struct Leaf {
    own: PathBuf,
    controllers: Vec<&'static str>,
    group: Group,
}

impl Leaf {
    /// Moves the launcher to a new group below `own` and lets `own` hand
    /// `controllers` down. Fails with EBUSY when others are in it, too.
    fn enter(own: &Path, controllers: &[&'static str]) -> Result<Self> {
        let group = Group::new(own, "-launcher")?;
        let controllers = controllers.to_vec();
        let leaf = Self { own: own.to_owned(), controllers, group };
        write(&leaf.group.folder, "cgroup.procs", "0")?;
        hand_down(own, '+', &leaf.controllers)?;
        Ok(leaf)
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        let _ = hand_down(&self.own, '-', &self.controllers);
        let _ = write(&self.own, "cgroup.procs", "0");
    }
}

/// A group that we made. Dropping it removes it.
struct Group {
    folder: PathBuf,
    /// Held while we live, so that nobody takes it for one left behind.
    _lock: Flock<File>,
}

impl Group {
    /// Makes a group below `parent`.
    fn new(parent: &Path, suffix: &str) -> Result<Self> {
        sweep(parent);
        let folder = parent.join(format!("step07-{}{suffix}", process::id()));
        loop {
            fs::create_dir(&folder).context(Stage::Cgroup(folder.clone()))?;
            match lock(&folder, FlockArg::LockExclusive) {
                Ok(lock) => return Ok(Self { folder, _lock: lock }),
                // Without a lock it would stay for the next run to sweep.
                Err(error) if fs::remove_dir(&folder).is_ok() => {
                    return Err(error);
                }
                // Another launcher has swept it up before it was locked.
                Err(_) => {}
            }
        }
    }
}

impl Drop for Group {
    // ANCHOR: drop
    fn drop(&mut self) {
        // EBUSY while the kernel still buries the last process in it.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            sleep(Duration::from_millis(10));
        }
    }
    // ANCHOR_END: drop
}

// ANCHOR: sweep
/// Removes the groups that killed launchers have left below `parent`: with a
/// launcher goes its lock. We hold it meanwhile, so that whoever has just made
/// the group waits for it, and then finds the group gone.
///
/// Whoever finds ten launchers alive leaves the rest to a later run: with a
/// thousand, looking at each would take longer than all else.
fn sweep(parent: &Path) {
    let mut alive = 0;
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if !name.as_encoded_bytes().starts_with(b"step07-") {
            continue;
        }
        match lock(&path, FlockArg::LockExclusiveNonblock) {
            // EBUSY while there still are processes in it.
            Ok(_lock) => _ = fs::remove_dir(path),
            Err(_) if alive == 10 => return,
            Err(_) => alive += 1,
        }
    }
}
// ANCHOR_END: sweep

/// Locks a folder, see flock(2); closing it gives the lock up. Fails with
/// ENOENT also when the folder was removed while we waited.
fn lock(folder: &Path, how: FlockArg) -> Result<Flock<File>> {
    let stage = || Stage::Cgroup(folder.into());
    let file = File::open(folder).with_context(stage)?;
    let lock = Flock::lock(file, how).map_err(|(_, errno)| errno);
    let lock = lock.with_context(stage)?;
    folder.metadata().with_context(stage)?;
    Ok(lock)
}
