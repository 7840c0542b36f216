//! What keeps us from making a cgroup and setting its limits, see cgroups(7).

use std::fs;
use std::iter;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess, geteuid};

use crate::around;
use crate::cause::{Cause, quoted};
use crate::mounts::{self, Mount};
use crate::status;

/// The controllers that step07 sets limits with.
const CONTROLLERS: [&str; 3] = ["pids", "memory", "cpu"];

/// Why our own group, or one for each limit, cannot be found.
pub fn not_found() -> Option<Cause> {
    if status::field("Pid").is_none() {
        return Some(Cause::NoProc {});
    }
    not_mounted().or_else(|| CONTROLLERS.into_iter().find_map(unavailable))
}

/// Why making this group, or writing this file of one, failed.
pub fn refused(path: &Path, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::EROFS => read_only(path),
        Errno::EACCES | Errno::EPERM => {
            read_only(path).or_else(|| not_ours(path))
        }
        Errno::ENOENT => not_mounted()
            .or_else(|| swap_not_counted(path))
            .or_else(|| match controller(path) {
                Some(controller) => unavailable(controller),
                // It may be any of them that cgroup.subtree_control misses.
                None => CONTROLLERS.into_iter().find_map(unavailable),
            }),
        Errno::EBUSY => occupied(path),
        _ => None,
    }
}

/// The group, ours or above ours, that may hold no more processes than it
/// does, and how many that are.
pub fn full_of_processes() -> Option<(PathBuf, String)> {
    let (mount, own) = own("pids").or_else(|| own(""))?;
    let groups = own.ancestors().take_while(|it| it.starts_with(&mount.point));
    groups.into_iter().find_map(|group| {
        let read = |file| fs::read_to_string(group.join(file)).ok();
        let limit: u64 = read("pids.max")?.trim().parse().ok()?;
        let now: u64 = read("pids.current")?.trim().parse().ok()?;
        (now >= limit).then(|| (group.to_owned(), limit.to_string()))
    })
}

/// The hierarchy that has this controller, as [`own`] wants it named: of
/// version 1 where our process is in a group of it, else version 2.
pub fn hierarchy(controller: &str) -> Option<&str> {
    let listed = |name| path_in(name).is_some();
    if listed(controller) {
        return Some(controller);
    }
    listed("").then_some("")
}

/// Our own group in the hierarchy of this v1 controller, or of version 2 when
/// it is `""`, and the mount that shows it.
pub fn own(controller: &str) -> Option<(Mount, PathBuf)> {
    let path = path_in(controller)?;
    // Of the tree, a mount may show only what is below its root.
    let mounts = mounts::all().into_iter();
    mounts.filter(|one| shows(one, controller)).find_map(|mount| {
        let below = path.strip_prefix(&mount.root).ok()?;
        let group = mount.point.join(below);
        Some((mount, group))
    })
}

/// Where we are in it, counted from its root.
fn path_in(controller: &str) -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let mut names = fields.next()?.split(',');
        names.any(|name| name == controller).then(|| fields.next())?
    })?;
    Some(path.into())
}

/// Whether this is the hierarchy of this controller, see [`own`].
fn shows(mount: &Mount, controller: &str) -> bool {
    match controller {
        "" => mount.kind == "cgroup2",
        _ => mount.kind == "cgroup" && mount.has(controller),
    }
}

fn not_mounted() -> Option<Cause> {
    let mounts = mounts::all();
    let cgroup = |one: &Mount| matches!(&*one.kind, "cgroup" | "cgroup2");
    let none = !mounts.is_empty() && !mounts.iter().any(cgroup);
    none.then_some(Cause::CgroupNotMounted {})
}

/// Why this controller cannot be used from where we are.
fn unavailable(controller: &str) -> Option<Cause> {
    if own(controller).is_some() {
        return None;
    }
    let listed = |directory: &Path| {
        let list = fs::read_to_string(directory.join("cgroup.controllers"));
        let list = list.unwrap_or_default();
        list.split_whitespace().any(|name| name == controller)
    };
    let unified = own("");
    if let Some((mount, group)) = &unified {
        if listed(group) {
            return None;
        }
        if listed(&mount.point) {
            return Some(Cause::ControllerNotDelegated {
                controller: controller.to_owned(),
                group: quoted(group),
            });
        }
    }
    // Name, hierarchy, number of groups, and whether it is enabled. All of
    // version 2 is hierarchy 0.
    let table = fs::read_to_string("/proc/cgroups").ok()?;
    let line = table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields.first() == Some(&controller)).then_some(fields)
    })?;
    let controller = controller.to_owned();
    let mounts = mounts::all();
    let version = if line.get(1)? == &"0" { "" } else { &*controller };
    Some(match (*line.get(1)?, *line.get(3)?, unified) {
        (_, "0", _) => Cause::ControllerOff { controller },
        ("0", _, Some((_, group))) => {
            let group = quoted(group);
            Cause::ControllerNotDelegated { controller, group }
        }
        // Mounted, but our own group is not in the part that we see.
        _ if mounts.iter().any(|one| shows(one, version)) => return None,
        _ => Cause::ControllerNotMounted { controller },
    })
}

/// As in `memory.max`.
fn controller(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?.split('.').next()?;
    CONTROLLERS.into_iter().find(|controller| *controller == name)
}

fn swap_not_counted(path: &Path) -> Option<Cause> {
    let missing = path.ends_with("memory.memsw.limit_in_bytes");
    let memory = path.with_file_name("memory.limit_in_bytes").exists();
    (missing && memory).then_some(Cause::SwapNotCounted {})
}

/// The part of this path that exists.
fn existing(path: &Path) -> Option<&Path> {
    let parts =
        path.ancestors().map(|part| match part.as_os_str().is_empty() {
            true => Path::new("."),
            false => part,
        });
    parts.into_iter().find(|part| part.exists())
}

fn read_only(path: &Path) -> Option<Cause> {
    let mount = mounts::holding(existing(path)?)?;
    mount.read_only().then(|| Cause::CgroupReadOnly {
        point: quoted(&mount.point),
        way_out: around::way_out("--privileged", "--privileged"),
    })
}

/// Who owns what we cannot write to, and who could give us something of ours.
/// On version 2 whoever moves a process needs the group that it comes from as
/// well.
fn not_ours(path: &Path) -> Option<Cause> {
    let place = existing(path)?;
    let kind = mounts::holding(place)?.kind;
    let here = own("").filter(|_| kind == "cgroup2");
    let here = here.map(|(_, group)| group.join("cgroup.procs"));
    let closed = |path: &Path| eaccess(path, AccessFlags::W_OK).is_err();
    let mut places = iter::once(place).chain(here.as_deref());
    let place = places.find(|place| closed(place))?;
    let owner = fs::metadata(place).ok()?.uid().to_string();
    let us = status::uid_at_start().unwrap_or_else(|| geteuid().as_raw());
    let path = quoted(place);
    Some(match &*kind {
        "cgroup" | "cgroup2" if us == 0 => Cause::CgroupOutside { path, owner },
        "cgroup2" if systemd_of(us) => {
            Cause::CgroupNotDelegated { path, owner }
        }
        "cgroup2" => Cause::CgroupNotOurs { path, owner },
        "cgroup" => Cause::CgroupV1 { path, owner },
        _ => return None,
    })
}

/// The versions that are mounted here: 1 where it has one of the controllers.
pub fn versions() -> Vec<u8> {
    let mounts = mounts::all();
    let v1 = |one: &Mount| CONTROLLERS.iter().any(|name| shows(one, name));
    let v2 = |one: &Mount| shows(one, "");
    let mut versions = Vec::new();
    versions.extend(mounts.iter().any(v1).then_some(1));
    versions.extend(mounts.iter().any(v2).then_some(2));
    versions
}

/// Whether systemd runs this machine, and another one this user's programs.
pub fn systemd_of(uid: u32) -> bool {
    Path::new("/run/systemd/system").is_dir()
        && Path::new(&format!("/run/user/{uid}/systemd")).is_dir()
}

fn occupied(path: &Path) -> Option<Cause> {
    let handing_down = path.ends_with("cgroup.subtree_control");
    let group = if handing_down { path.parent()? } else { path };
    let pids = fs::read_to_string(group.join("cgroup.procs")).ok()?;
    let pids: Vec<_> = pids.split_whitespace().collect();
    let group = quoted(group);
    match pids.is_empty() {
        true => None,
        false if handing_down => Some(Cause::InternalProcesses { group }),
        false => Some(Cause::GroupNotEmpty { group, pids: pids.join(" ") }),
    }
}
