//! The kernel's switches, see sysctl(8).

use std::fs;

use nix::sched::CloneFlags;

/// The value of a switch such as `user.max_user_namespaces`; `None` when this
/// kernel has no such switch, or `/proc` does not tell.
pub fn value(name: &str) -> Option<u64> {
    let file = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Each kind of namespace: its flag, its name in `/proc/self/ns`, and the
/// switch that limits how many a user may have in our user namespace.
const NAMESPACES: [(CloneFlags, &str, &str); 5] = [
    (CloneFlags::CLONE_NEWUSER, "user", "user.max_user_namespaces"),
    (CloneFlags::CLONE_NEWNS, "mnt", "user.max_mnt_namespaces"),
    (CloneFlags::CLONE_NEWUTS, "uts", "user.max_uts_namespaces"),
    (CloneFlags::CLONE_NEWPID, "pid", "user.max_pid_namespaces"),
    (CloneFlags::CLONE_NEWCGROUP, "cgroup", "user.max_cgroup_namespaces"),
];

/// The first switch that allows none of these namespaces.
pub fn namespaces_off(flags: CloneFlags) -> Option<&'static str> {
    let wanted = NAMESPACES.iter().filter(|kind| flags.contains(kind.0));
    wanted.map(|kind| kind.2).find(|limit| value(limit) == Some(0))
}

/// The first of these namespaces that this kernel was built without.
pub fn namespace_missing(flags: CloneFlags) -> Option<&'static str> {
    let known: Vec<_> = fs::read_dir("/proc/self/ns").ok()?.flatten().collect();
    let has = |name| known.iter().any(|entry| entry.file_name() == name);
    let wanted = NAMESPACES.iter().filter(|kind| flags.contains(kind.0));
    wanted.map(|kind| kind.1).find(|name| !has(*name))
}
