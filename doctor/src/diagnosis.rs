//! From a failed stage and its errno to the cause.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Error;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::geteuid;

use crate::apparmor;
use crate::around;
use crate::capabilities::{self, Capability};
use crate::cause::{Cause, quoted};
use crate::cgroup;
use crate::chroot;
use crate::command::Lookup;
use crate::directory;
use crate::limits;
use crate::mounts;
use crate::proc_mount::{self, Obstacle};
use crate::seccomp::Call;
use crate::stage::Stage;
use crate::status;
use crate::sysctls;

/// Why `error` happened on this machine; `None` when nothing was seen that
/// explains it. Call it right after the failure, in the same process.
pub fn cause(error: &Error) -> Option<Cause> {
    let errno = errno(error);
    if errno == Some(Errno::EMFILE) {
        return limits::open_files();
    }
    let stage = error.downcast_ref::<Stage>()?;
    match errno {
        Some(errno) => by_errno(stage, errno),
        None if *stage == Stage::FindCgroup => cgroup::not_found(),
        None => None,
    }
}

/// The kernel's answer, wherever in the chain it is.
fn errno(error: &Error) -> Option<Errno> {
    error.chain().find_map(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        let number = io.and_then(io::Error::raw_os_error);
        let errno = cause.downcast_ref::<Errno>().copied();
        errno.or(number.map(Errno::from_raw))
    })
}

/// The order matters where several causes could be seen at once: first what
/// would still be in the way with all the others gone.
fn by_errno(stage: &Stage, errno: Errno) -> Option<Cause> {
    use Errno as E;
    match (stage, errno) {
        (Stage::StartChild, E::EAGAIN)
        | (Stage::Exec(_) | Stage::ExecInRoot(..), E::EAGAIN) => {
            limits::processes()
        }
        (Stage::StartChild, E::E2BIG)
        | (Stage::Exec(_) | Stage::ExecInRoot(..), E::E2BIG) => {
            limits::arguments()
        }

        (Stage::ReadStatus | Stage::MapIds(_), E::ENOENT)
        | (Stage::StartChild, E::ENOENT) => no_proc(),

        (Stage::Unshare(flags), E::EPERM | E::EACCES | E::ENOSYS) => {
            filter(Call::Unshare(*flags), errno)
                .or_else(|| match flags.contains(CloneFlags::CLONE_NEWUSER) {
                    true => no_user_namespace(),
                    false => lacks(Capability::SysAdmin),
                })
                .or_else(|| confined(errno))
        }
        (Stage::Unshare(flags), E::ENOSPC) => no_room(*flags),
        (Stage::Unshare(flags), E::EINVAL) => unknown(*flags),

        (Stage::MapIds(_), E::EROFS) => proc_read_only(),
        (Stage::MapIds(file), E::EPERM | E::EACCES) => {
            restricted().or_else(|| no_setfcap(file))
        }

        (Stage::SetHostname(name), E::EINVAL) => {
            let length = name.len();
            (length > 64)
                .then(|| Cause::HostnameTooLong { length: length.to_string() })
        }
        (Stage::SetHostname(_), E::EPERM) => {
            restricted().or_else(|| lacks(Capability::SysAdmin))
        }

        (Stage::Chroot(root), E::EPERM) => filter(Call::Chroot, errno)
            .or_else(restricted)
            .or_else(|| lacks(Capability::SysChroot))
            .or_else(|| directory::closed_to_us(root)),
        (
            Stage::UseRoot(root)
            | Stage::Chroot(root)
            | Stage::BindRoot(root)
            | Stage::PivotRoot(root),
            E::ENOENT | E::ENOTDIR,
        ) => no_root(root),
        (
            Stage::UseRoot(root)
            | Stage::Chroot(root)
            | Stage::BindRoot(root)
            | Stage::PivotRoot(root),
            E::EACCES,
        ) => directory::closed_to_us(root).or_else(|| confined(errno)),

        (Stage::MakeMountsPrivate, E::EINVAL) => {
            in_chroot("to make mounts private")
        }
        (Stage::PivotRoot(root), E::EBUSY | E::EINVAL)
            if root == Path::new("/") =>
        {
            Some(Cause::SameRoot {})
        }
        (Stage::PivotRoot(root), E::EINVAL) => not_pivotable(root),
        (Stage::PivotRoot(root), E::EBUSY) => not_mount_point(root),
        (Stage::PivotRoot(_), E::EPERM) => forbidden(Call::PivotRoot, errno),

        (
            Stage::MountProc(place) | Stage::MakeDevice(place),
            E::ENOENT | E::ENOTDIR | E::ELOOP | E::EXDEV,
        ) => no_place(place),
        (Stage::MountProc(place), E::EACCES) => directory::closed_to_us(place)
            .or_else(|| forbidden(Call::Mount, errno)),
        (Stage::MountProc(_), E::EPERM) => {
            forbidden(Call::Mount, errno).or_else(no_new_proc)
        }
        (
            Stage::MakeMountsPrivate
            | Stage::BindRoot(_)
            | Stage::DetachOldRoot
            | Stage::MakeDevice(_),
            E::EPERM | E::EACCES,
        ) => forbidden(Call::Mount, errno),

        (Stage::FindCgroup, _) => cgroup::not_found(),
        (Stage::Cgroup(path), errno) => cgroup::refused(path, errno),

        (Stage::Exec(command), errno) => not_runnable(command, errno),
        (Stage::ExecInRoot(command, path), errno) => {
            let root = root_outside();
            Lookup { command, inside: Some((&root, path)) }.failed(errno)
        }

        _ => None,
    }
}

/// What keeps root, a user namespace's included, from doing what root may do.
fn forbidden(call: Call, errno: Errno) -> Option<Cause> {
    filter(call, errno)
        .or_else(|| confined(errno))
        .or_else(|| lacks(Capability::SysAdmin))
}

fn filter(call: Call, errno: Errno) -> Option<Cause> {
    call.refused(errno).then(|| {
        let option = "--security-opt seccomp=unconfined";
        Cause::SeccompFilter {
            call: call.name().to_owned(),
            way_out: around::way_out(option, option),
        }
    })
}

/// AppArmor answers EACCES to what its profile does not allow, and EPERM when
/// that is a capability.
fn confined(errno: Errno) -> Option<Cause> {
    restricted().or_else(|| {
        let profile = apparmor::profile().filter(|_| errno == Errno::EACCES)?;
        let option = "--security-opt apparmor=unconfined";
        Some(Cause::AppArmorProfile {
            profile: quoted(profile),
            way_out: around::way_out(option, option),
        })
    })
}

fn restricted() -> Option<Cause> {
    apparmor::restricts_us().then_some(Cause::AppArmorUserns {})
}

fn lacks(capability: Capability) -> Option<Cause> {
    capabilities::lacks(capability).then(|| {
        let name = capability.to_string();
        let option = name.replace("CAP_", "--cap-add ");
        let way_out = match around::seen() {
            Some(_) => around::way_out(&option, &option),
            None => "run it as root with `sudo …`".to_owned(),
        };
        Cause::NoCapability { capability: name, way_out }
    })
}

fn in_chroot(forbidden: &str) -> Option<Cause> {
    let sign = match chroot::sign()? {
        chroot::Sign::NoMountAtRoot => "its / is not a mount point".to_owned(),
        chroot::Sign::SeenElsewhere { pid, point } => {
            format!("for process {pid} its / is {}", quoted(point))
        }
    };
    Some(Cause::Chroot { forbidden: forbidden.to_owned(), sign })
}

fn no_user_namespace() -> Option<Cause> {
    if sysctls::value("kernel.unprivileged_userns_clone") == Some(0) {
        return Some(Cause::UnprivilegedUsernsClone {});
    }
    in_chroot("a user namespace").or_else(not_mapped).or_else(|| {
        apparmor::restricts_user_namespaces()
            .then_some(Cause::AppArmorUserns {})
    })
}

fn not_mapped() -> Option<Cause> {
    let uid = geteuid().as_raw();
    let map = status::uid_map()?;
    let mapped = map.iter().any(|range| range.outside(uid).is_some());
    (!mapped).then(|| Cause::NoMapping { uid: uid.to_string() })
}

fn no_room(flags: CloneFlags) -> Option<Cause> {
    if let Some(switch) = sysctls::namespaces_off(flags) {
        return Some(Cause::NamespacesOff { switch: switch.to_owned() });
    }
    // MAX_PID_NS_LEVEL, not counting the outermost.
    const DEEPEST: usize = 33;
    let depth = status::pid_depth().filter(|depth| *depth >= DEEPEST)?;
    flags
        .contains(CloneFlags::CLONE_NEWPID)
        .then(|| Cause::NestedTooDeep { depth: depth.to_string() })
}

fn unknown(flags: CloneFlags) -> Option<Cause> {
    if let Some(kind) = sysctls::namespace_missing(flags) {
        return Some(Cause::NamespaceMissing { kind: kind.to_owned() });
    }
    let threads = status::threads().filter(|threads| *threads > 1)?;
    flags
        .contains(CloneFlags::CLONE_NEWUSER)
        .then(|| Cause::ManyThreads { threads: threads.to_string() })
}

fn no_proc() -> Option<Cause> {
    status::field("Pid").is_none().then_some(Cause::NoProc {})
}

fn proc_read_only() -> Option<Cause> {
    let mount = mounts::holding(Path::new("/proc"))?;
    let point = quoted(&mount.point);
    mount.read_only().then_some(Cause::ProcReadOnly { point })
}

/// The kernel lets whoever made the namespace map themselves; the exception
/// is uid 0 without CAP_SETFCAP. What we could do before unshare(2) cannot be
/// seen any more, but that this exception is the only one left can.
fn no_setfcap(file: &str) -> Option<Cause> {
    let exception = file == "uid_map"
        && status::uid_at_start() == Some(0)
        && status::uid_map().is_some_and(|map| map.is_empty())
        && capabilities::effective(Capability::SysAdmin) == Some(true)
        && apparmor::profile().is_none();
    exception.then_some(Cause::NoSetFcap {})
}

fn no_root(root: &Path) -> Option<Cause> {
    if let Some(file) = directory::not_a_directory(root) {
        return Some(Cause::RootIsFile { path: quoted(file) });
    }
    if let Some((link, target)) = directory::dangling(root) {
        let (file, target) = (quoted(link), quoted(target));
        return Some(Cause::DanglingLink { file, target });
    }
    let path = quoted(directory::missing(root)?);
    Some(Cause::NoRoot { path })
}

/// What our root is called outside: `--rootfs`, which is `fs` by default, is
/// the same for all steps and for both of their halves.
fn root_outside() -> PathBuf {
    let mut arguments = env::args_os().skip(1);
    let named = arguments.find(|argument| argument == "--rootfs");
    let root = named.and_then(|_| arguments.next());
    root.unwrap_or_else(|| "fs".into()).into()
}

/// A `chmod` of what is wrong here would change another file when our root is
/// not our caller's. It may not be when `/proc` shows us as PID 1, or nothing.
fn not_runnable(command: &OsStr, errno: Errno) -> Option<Cause> {
    let pid = status::field("Pid").filter(|pid| pid != "1");
    pid.and_then(|_| Lookup { command, inside: None }.failed(errno))
}

/// What is missing under the place where something should be mounted or made.
fn no_place(place: &Path) -> Option<Cause> {
    // A device is no directory, and yet has to be in one.
    let parent = place.parent().filter(|parent| parent.ends_with("dev"));
    let directory = parent.unwrap_or(place);
    // Inside already: what is at these paths outside is the host's.
    let outside = |path: &Path| match directory.to_str() {
        Some("/proc" | "/dev") => {
            quoted(root_outside().join(path.strip_prefix("/").unwrap_or(path)))
        }
        _ => quoted(path),
    };
    if let Ok(target) = directory.read_link() {
        let (path, target) = (outside(directory), quoted(target));
        return Some(Cause::LinkInRoot { path, target });
    }
    // The root itself, which was there when the launcher looked.
    let root = directory.parent().filter(|it| !it.as_os_str().is_empty());
    if let Some(root) = root.filter(|root| !root.is_dir()) {
        return no_root(root);
    }
    if let Some(file) = directory::not_a_directory(directory) {
        return Some(Cause::NotDirectory { path: outside(&file) });
    }
    if !directory.is_dir() {
        directory::missing(directory)?;
        return Some(Cause::NoDirectory { path: outside(directory) });
    }
    // Right after pivot_root(2) the old root is above ours; at any other time
    // nothing is.
    let host = Path::new("/../dev").join(parent.and(place.file_name())?);
    let path = Path::new("/dev").join(place.file_name()?);
    (!host.exists()).then(|| Cause::NoDevice { path: quoted(path) })
}

fn no_new_proc() -> Option<Cause> {
    Some(match proc_mount::obstacle()? {
        Obstacle::ReadOnly(point) => {
            Cause::ProcReadOnly { point: quoted(point) }
        }
        Obstacle::Masked(path) => Cause::ProcMasked {
            path: quoted(path),
            way_out: around::way_out(
                "--security-opt systempaths=unconfined",
                "--security-opt unmask=ALL",
            ),
        },
    })
}

fn not_pivotable(root: &Path) -> Option<Cause> {
    if let Some(chroot) = in_chroot("pivot_root(2)") {
        return Some(chroot);
    }
    let mounts = mounts::all();
    let top = mounts.iter().rfind(|one| one.point == Path::new("/"))?;
    if top.kind == "rootfs" {
        return Some(Cause::RootIsInitramfs {});
    }
    let new = mounts::holding(&where_is(root)?);
    let shared = [new.as_ref(), Some(top)].into_iter().flatten();
    let shared = shared.filter(|one| one.shared);
    let mut causes = shared.map(|one| {
        let point = quoted(&one.point);
        Cause::SharedMount { point }
    });
    causes.next().or_else(|| not_mount_point(root))
}

fn not_mount_point(root: &Path) -> Option<Cause> {
    let root = where_is(root)?;
    let mounts = mounts::all();
    let found = mounts.is_empty() || mounts.iter().any(|it| it.point == root);
    (!found).then(|| Cause::NotMountPoint { path: quoted(root) })
}

/// The root, which may be where we are by now: pivot_root(2) is called in it.
fn where_is(root: &Path) -> Option<PathBuf> {
    root.canonicalize()
        .ok()
        .or_else(|| env::current_dir().ok().filter(|here| here.ends_with(root)))
}
