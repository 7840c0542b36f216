//! The control groups that the suite runs in, on version 1, version 2 and
//! hybrid hosts.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{AccessFlags, Pid, access, getpid, getppid, getuid};

use crate::caller::Caller;
use crate::process::Process;

/// What step07 limits.
pub const CONTROLLERS: [&str; 3] = ["pids", "memory", "cpu"];

/// A hierarchy that is mounted here.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Whether it is version 2.
    pub is_v2: bool,
    /// Those of [`CONTROLLERS`] that it has.
    pub controllers: Vec<&'static str>,
    /// The group that this process is in, as a directory.
    pub own: PathBuf,
    /// What /proc/self/cgroup calls it, on version 1.
    names: BTreeSet<String>,
    /// Where it is mounted, and which group shows there.
    mount: PathBuf,
    root: String,
}

impl Hierarchy {
    /// The group that a process is in, as a directory.
    pub fn group_of(&self, process: Process) -> Result<PathBuf> {
        let groups = process.read("cgroup")?;
        let path = self.path_in(&groups).context("not in this hierarchy")?;
        Ok(self.mount.join(below(&path, &self.root)))
    }

    /// What a file like /proc/self/cgroup says of this hierarchy.
    fn path_in(&self, groups: &str) -> Option<String> {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let mut names = names.split(',');
            let is_it = match self.is_v2 {
                true => names.all(str::is_empty),
                false => names.any(|name| self.names.contains(name)),
            };
            is_it.then(|| path.to_owned())
        })
    }
}

fn below<'a>(path: &'a str, root: &str) -> &'a Path {
    let path = Path::new(path);
    path.strip_prefix(root).or(path.strip_prefix("/")).unwrap_or(path)
}

/// The hierarchies that hold one of [`CONTROLLERS`], from what is mounted.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mut found = mounted()?;
    found.retain(|hierarchy| !hierarchy.controllers.is_empty());
    Ok(found)
}

/// All that are mounted.
fn mounted() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let left: Vec<_> = left.split(' ').collect();
        let right: Vec<_> = right.split(' ').collect();
        let (root, mount) = (left[3], PathBuf::from(left[4]));
        let is_v2 = match right[0] {
            "cgroup2" => true,
            "cgroup" => false,
            _ => continue,
        };
        let mut hierarchy = Hierarchy {
            is_v2,
            controllers: Vec::new(),
            own: PathBuf::new(),
            names: right[2].split(',').map(str::to_owned).collect(),
            root: root.to_owned(),
            mount,
        };
        let Some(path) = hierarchy.path_in(&groups) else { continue };
        hierarchy.own = hierarchy.mount.join(below(&path, root));
        let names = match is_v2 {
            true => {
                fs::read_to_string(hierarchy.own.join("cgroup.controllers"))
                    .unwrap_or_default()
            }
            false => right[2].replace(',', " "),
        };
        hierarchy.controllers = CONTROLLERS
            .into_iter()
            .filter(|name| names.split_whitespace().any(|has| has == *name))
            .collect();
        // A hierarchy may be mounted twice.
        let is_known = found.iter().any(|other| {
            other.is_v2 == is_v2 && other.names == hierarchy.names
                || hierarchy
                    .controllers
                    .iter()
                    .any(|name| other.controllers.contains(name))
        });
        if !is_known {
            found.push(hierarchy);
        }
    }
    Ok(found)
}

/// The groups that the suite made for itself, one in each hierarchy, with one
/// for each caller inside. Removed with [`Groups::remove`].
///
/// Whatever else runs on this host, a group that appears below these is ours.
#[derive(Debug, Default)]
pub struct Groups {
    made: Vec<PathBuf>,
    root: Vec<PathBuf>,
    user: Vec<PathBuf>,
}

impl Groups {
    /// Makes them, the user's half delegated to it: root only. For an
    /// ordinary user there is only the group that it is in.
    pub fn make() -> Result<Self> {
        let mut groups = Self::default();
        if Caller::own() != Caller::Root {
            return Ok(groups);
        }
        for hierarchy in hierarchies()? {
            if let Err(error) = groups.make_in(&hierarchy) {
                groups.remove();
                return Err(error);
            }
        }
        Ok(groups)
    }

    fn make_in(&mut self, hierarchy: &Hierarchy) -> Result<()> {
        let parent = parent_for(hierarchy);
        remove_stale(&parent);
        let top = parent.join(name_of(getpid())?);
        self.create(hierarchy, &top)?;
        for caller in Caller::ALL {
            let group = top.join(caller.to_string());
            let leaf = group.join("caller");
            let (uid, gid) = caller.ids();
            let mut dirs = vec![&group];
            self.create(hierarchy, &group)?;
            if hierarchy.is_v2 {
                // A group with processes cannot hand controllers down.
                make_dir(&leaf)?;
                self.made.push(leaf.clone());
                dirs.push(&leaf);
            }
            for dir in &dirs {
                chown(dir, Some(uid), Some(gid))?;
                for file in
                    ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]
                {
                    if dir.join(file).exists() {
                        chown(dir.join(file), Some(uid), Some(gid))?;
                    }
                }
            }
            match caller {
                Caller::Root => &mut self.root,
                Caller::User => &mut self.user,
            }
            .push(dirs[dirs.len() - 1].clone());
        }
        Ok(())
    }

    fn create(&mut self, hierarchy: &Hierarchy, dir: &Path) -> Result<()> {
        make_dir(dir)?;
        self.made.push(dir.to_owned());
        if hierarchy.is_v2 {
            hand_down(dir, &hierarchy.controllers)?;
        }
        Ok(())
    }

    /// The groups that a caller's programs join before anything else.
    pub fn of(&self, caller: Caller) -> &[PathBuf] {
        match caller {
            Caller::Root => &self.root,
            Caller::User => &self.user,
        }
    }

    /// Every directory that stands below the suite's groups. Where it made
    /// none, those of this user below the group that this process is in, and
    /// on version 2 those beside it, where a program may have to put its own.
    /// Others come and go, and so do systemd's.
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        let own = getuid().as_raw();
        let mut tops: Vec<_> = match self.made.is_empty() {
            true => hierarchies()
                .unwrap_or_default()
                .into_iter()
                .flat_map(|it| writable_above(&it).into_iter().chain([it.own]))
                .collect(),
            false => self.made.clone(),
        };
        let is_ours = |dir: &PathBuf| {
            !self.made.is_empty()
                || dir.metadata().is_ok_and(|meta| meta.uid() == own)
        };
        let mut found = BTreeSet::new();
        while let Some(dir) = tops.pop() {
            let mut below = directories_in(&dir);
            below.retain(|dir| !is_unit(dir));
            if is_ours(&dir) && !found.insert(dir) {
                continue;
            }
            tops.extend(below);
        }
        found
    }

    /// Removes what is there now and was not `before`, so that one test that
    /// failed does not fail the others.
    pub fn restore(&self, before: &BTreeSet<PathBuf>) {
        // The deepest come last.
        for dir in self.directories().iter().rev() {
            if before.contains(dir) {
                continue;
            }
            let _ = fs::remove_dir(dir);
        }
    }

    /// Removes them, and whatever a failed test left below.
    pub fn remove(&mut self) {
        for dir in self.made.drain(..).rev() {
            remove_tree(&dir);
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A group in each hierarchy that a process takes for the whole tree, so that
/// whatever a program in it makes where, it can be removed.
#[derive(Debug, Default)]
pub struct Pen(Vec<(Hierarchy, PathBuf)>);

/// More processes than a program under test has a use for.
pub const MOST: u64 = 1000;

/// The group in the pen for those who are not under test.
const KEEPER: &str = "suite-keeper";

impl Pen {
    /// Makes it, as root, where that is possible.
    pub fn make() -> Self {
        let mut pen = Self::default();
        if Caller::own() != Caller::Root {
            return pen;
        }
        for hierarchy in mounted().unwrap_or_default() {
            let parent = parent_for(&hierarchy);
            remove_stale(&parent);
            let Ok(name) = name_of(getpid()) else { continue };
            let top = parent.join(name);
            if make_dir(&top).is_ok() {
                // A cpuset is empty at first, and then nobody can join it.
                for name in ["cpuset.cpus", "cpuset.mems"] {
                    if let Ok(all) = fs::read(parent.join(name)) {
                        let _ = fs::write(top.join(name), all);
                    }
                }
                // So that no program can have so many that they are never
                // all found.
                let _ = fs::write(top.join("pids.max"), MOST.to_string());
                pen.0.push((hierarchy, top));
            }
        }
        pen
    }

    /// Makes this process, and what it starts, see the pen that its parent
    /// made as the whole tree. It must have a mount table of its own.
    pub fn enter() -> Result<()> {
        let name = name_of(getppid())?;
        let mut pens: Vec<_> = mounted()?
            .into_iter()
            .map(|hierarchy| (parent_for(&hierarchy).join(&name), hierarchy))
            .collect();
        pens.retain(|(top, _)| top.is_dir() && join(top).is_ok());
        if pens.is_empty() {
            return Ok(());
        }
        unshare(CloneFlags::CLONE_NEWCGROUP)?;
        for (top, hierarchy) in &pens {
            if hierarchy.is_v2 {
                // A group with processes cannot hand controllers down.
                make_dir(&top.join(KEEPER))?;
                join(&top.join(KEEPER))?;
                hand_down(top, &hierarchy.controllers)?;
            }
            let bind = |from: &Path, to: &Path, flags| {
                mount(Some(from), to, None::<&str>, flags, None::<&str>)
            };
            // In the place of the tree, not over it: who reads the mount
            // table shall find one.
            let between = tempfile::tempdir()?;
            bind(top, between.path(), MsFlags::MS_BIND)?;
            umount2(&hierarchy.mount, MntFlags::MNT_DETACH)?;
            bind(between.path(), &hierarchy.mount, MsFlags::MS_MOVE)?;
        }
        Ok(())
    }

    /// What a program made in it and left.
    pub fn left(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for (hierarchy, top) in &self.0 {
            for dir in directories_in(top) {
                let name = dir.strip_prefix(top).unwrap_or(&dir);
                if !name.to_string_lossy().starts_with("suite-") {
                    left.push(hierarchy.mount.join(name));
                }
            }
        }
        left
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        for (_, top) in &self.0 {
            remove_tree(top);
        }
    }
}

fn join(dir: &Path) -> Result<()> {
    fs::write(dir.join("cgroup.procs"), "0")
        .with_context(|| format!("cannot join the group {}", dir.display()))
}

/// Whether that caller may make groups in every hierarchy that step07 needs.
pub fn is_writable(groups: &Groups, caller: Caller) -> bool {
    let given = groups.of(caller);
    if !given.is_empty() {
        return true;
    }
    let Ok(hierarchies) = hierarchies() else {
        return false;
    };
    let has: BTreeSet<_> =
        hierarchies.iter().flat_map(|h| &h.controllers).collect();
    caller == Caller::own()
        && has.len() == CONTROLLERS.len()
        && hierarchies.iter().all(|hierarchy| {
            access(&hierarchy.own, AccessFlags::W_OK).is_ok()
                && access(
                    &hierarchy.own.join("cgroup.procs"),
                    AccessFlags::W_OK,
                )
                .is_ok()
        })
}

/// Where the suite's group can stand: our own one, or on version 2 the
/// nearest above it that can hand down controllers.
fn parent_for(hierarchy: &Hierarchy) -> PathBuf {
    let mut dir = hierarchy.own.clone();
    while hierarchy.is_v2
        && hand_down(&dir, &hierarchy.controllers).is_err()
        && dir != hierarchy.mount
        && dir.pop()
    {}
    dir
}

/// The nearest group above our own that we may make others in: below ours,
/// which has processes, version 2 allows none with limits.
fn writable_above(hierarchy: &Hierarchy) -> Option<PathBuf> {
    let above = hierarchy.own.ancestors().skip(1);
    above
        .take_while(|dir| hierarchy.is_v2 && dir.starts_with(&hierarchy.mount))
        .find(|dir| {
            access(&dir.join("cgroup.procs"), AccessFlags::W_OK).is_ok()
        })
        .map(Path::to_owned)
}

/// Whether systemd gave it its name, see systemd.unit(5).
fn is_unit(dir: &Path) -> bool {
    let kind = dir.extension().and_then(OsStr::to_str);
    kind.is_some_and(|kind| ["scope", "service", "slice"].contains(&kind))
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir(dir)
        .with_context(|| format!("cannot make the group {}", dir.display()))
}

fn hand_down(dir: &Path, controllers: &[&str]) -> Result<()> {
    let file = dir.join("cgroup.subtree_control");
    let now = fs::read_to_string(&file)?;
    for name in controllers {
        if !now.split_whitespace().any(|has| has == *name) {
            fs::write(&file, format!("+{name}")).with_context(|| {
                format!("cannot hand down {name} in {}", dir.display())
            })?;
        }
    }
    Ok(())
}

/// The name of what a process makes: the same number is somebody else in
/// another PID namespace.
fn name_of(pid: Pid) -> Result<String> {
    let namespace = fs::metadata("/proc/self/ns/pid")?.ino();
    Ok(format!("suite-{namespace}-{pid}"))
}

/// Removes what a suite left that was itself killed.
fn remove_stale(parent: &Path) {
    for dir in directories_in(parent) {
        let pid = dir
            .file_name()
            .and_then(|name| name.to_str()?.rsplit('-').next()?.parse().ok())
            .map(Pid::from_raw);
        if let Some(pid) = pid {
            let is_ours = name_of(pid).is_ok_and(|name| dir.ends_with(name));
            if is_ours && !Path::new(&format!("/proc/{pid}")).exists() {
                remove_tree(&dir);
            }
        }
    }
}

fn directories_in(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.symlink_metadata().is_ok_and(|m| m.is_dir()))
        .collect()
}

/// Removes a group and those below it; the ones with processes stay.
pub fn remove_tree(dir: &Path) {
    for below in directories_in(dir) {
        remove_tree(&below);
    }
    let _ = fs::remove_dir(dir);
}
