//! Facts about this machine that are looked up and need no trial.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use doctor::around::{self, Around};
use doctor::capabilities::{self, Capability};
use doctor::chroot::{self, Sign};
use doctor::{cgroup, kernel, mounts, status, sysctls};
use nix::unistd::{AccessFlags, access, geteuid};
use serde_json::{Value, json};

/// The switches that forbid namespaces, each with the value that does.
const SWITCHES: [(&str, u64); 7] = [
    ("kernel.apparmor_restrict_unprivileged_userns", 1),
    ("kernel.unprivileged_userns_clone", 0),
    ("user.max_cgroup_namespaces", 0),
    ("user.max_mnt_namespaces", 0),
    ("user.max_pid_namespaces", 0),
    ("user.max_user_namespaces", 0),
    ("user.max_uts_namespaces", 0),
];

/// Said in place of all that cannot be seen without it.
const UNTOLD: &str = "unknown without /proc";

/// What VS Code and Codespaces make.
const DEVCONTAINER: &str = "devcontainer";

/// What can be said of it.
pub struct Host {
    pub release: Option<String>,
    pub wsl: Option<u8>,
    /// As in `Debian GNU/Linux 12 (bookworm)`.
    system: Option<String>,
    uid: u32,
    /// Whether `/proc` tells anything at all.
    told: bool,
    /// Whether the steps need no user namespace.
    pub capable: bool,
    /// Whether this is the machine's own user namespace.
    outermost: bool,
    pub container: Option<String>,
    pub chroot: Option<String>,
    /// Whether the machine is one of `cargo workshop vm`, or like it.
    pub user_mode: bool,
    /// Whether this is another PID namespace than the machine's.
    pid_namespace: Option<bool>,
    /// How `/` passes mounts on.
    pub root: &'static str,
    pub switches: Vec<(&'static str, Option<u64>)>,
    cgroups: Vec<u8>,
}

impl Host {
    /// Looks them up.
    pub fn now() -> Self {
        let release = kernel::release();
        let all = u32::MAX - 1;
        let map = status::uid_map().unwrap_or_default();
        let mounts = mounts::all();
        let root = mounts.iter().rfind(|one| one.point == Path::new("/"));
        Self {
            wsl: release.as_deref().and_then(kernel::wsl),
            release,
            system: os_release("PRETTY_NAME"),
            uid: geteuid().as_raw(),
            told: status::field("Pid").is_some(),
            capable: capabilities::effective(Capability::SysAdmin)
                == Some(true),
            outermost: map.iter().any(|it| it.outside(all) == Some(all)),
            container: container(),
            chroot: chroot::sign().map(|sign| match sign {
                Sign::NoMountAtRoot => "/ is not a mount point".to_owned(),
                Sign::SeenElsewhere { pid, point } => {
                    format!("for process {pid} / is {}", point.display())
                }
            }),
            user_mode: around::in_user_mode_linux(),
            pid_namespace: around::in_a_pid_namespace(),
            root: match root.map(|root| root.shared) {
                Some(true) => "shared",
                Some(false) => "private",
                None => "no mount",
            },
            switches: SWITCHES
                .map(|(name, _)| (name, sysctls::value(name)))
                .to_vec(),
            cgroups: cgroup::versions(),
        }
    }

    /// Who we are, in words.
    pub fn rights(&self) -> String {
        let uid = self.uid;
        if !self.told {
            return UNTOLD.to_owned();
        }
        match (uid, self.capable, self.outermost) {
            (0, true, true) => "root, with CAP_SYS_ADMIN: may make every \
                                namespace"
                .to_owned(),
            (_, true, true) => {
                format!("uid {uid}, with CAP_SYS_ADMIN, as root has it")
            }
            (_, true, false) => {
                "root of a user namespace, and nobody outside of it".to_owned()
            }
            (0, false, _) => "root without CAP_SYS_ADMIN, as in Docker: no \
                              more than a user"
                .to_owned(),
            (_, false, _) => format!(
                "uid {uid}, an ordinary user: a user namespace comes first"
            ),
        }
    }

    /// The switches that forbid something, in words.
    pub fn forbidding(&self) -> String {
        let both = self.switches.iter().zip(SWITCHES);
        let forbidding: Vec<_> = both
            .filter(|((_, value), (_, forbids))| *value == Some(*forbids))
            .map(|(_, (name, value))| format!("{name} is {value}"))
            .collect();
        match &forbidding[..] {
            _ if !self.told => UNTOLD.to_owned(),
            [] => "none forbids a namespace".to_owned(),
            some => some.join(", "),
        }
    }

    /// What is around us, in words.
    pub fn around(&self) -> String {
        match (&self.container, &self.chroot) {
            _ if !self.told => UNTOLD.to_owned(),
            (Some(name), _) if name == DEVCONTAINER => {
                "a devcontainer: options for `docker run` go into `runArgs` \
                 in devcontainer.json"
                    .to_owned()
            }
            (Some(name), _) => format!("a container ({name})"),
            (None, Some(sign)) => format!("a chroot ({sign})"),
            (None, None) if self.pid_namespace == Some(true) => {
                "somebody's PID namespace, as in a container".to_owned()
            }
            (None, None) if self.user_mode => {
                "a kernel of your own, User-Mode Linux, as in `cargo workshop \
                 vm`"
                .to_owned()
            }
            (None, None) => "no container and no chroot seen".to_owned(),
        }
    }

    /// How mounts get from one mount table to the next, in words.
    pub fn mounts(&self) -> &'static str {
        match self.root {
            _ if !self.told => UNTOLD,
            "shared" => {
                "/ is shared, as systemd has it: the steps cut it loose"
            }
            "private" => "/ is private",
            _ => "/ is not a mount point",
        }
    }

    /// The layout of the control groups, in words.
    pub fn layout(&self) -> &'static str {
        match self.cgroups[..] {
            _ if !self.told => UNTOLD,
            [] => "none mounted",
            [1] => "version 1",
            [2] => "version 2",
            _ => "hybrid: controllers in version 1, and a version 2 beside it",
        }
    }

    /// For those who collect them.
    pub fn to_json(&self) -> Value {
        let switches: serde_json::Map<_, _> = self
            .switches
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        json!({
            "kernel": self.release,
            "wsl": self.wsl,
            "system": self.system,
            "architecture": env::consts::ARCH,
            "uid": self.uid,
            "cap_sys_admin": self.capable,
            "initial_user_namespace": self.outermost,
            "initial_pid_namespace": self.pid_namespace.map(|other| !other),
            "container": self.container,
            "chroot": self.chroot,
            "user_mode_linux": self.user_mode,
            "root": self.root,
            "cgroups": match self.cgroups[..] {
                [] => "none",
                [1] => "v1",
                [2] => "v2",
                _ => "hybrid",
            },
            "switches": switches,
        })
    }
}

/// Who put a container around us, if somebody says so.
fn container() -> Option<String> {
    let seen = around::seen().map(|around| match around {
        Around::Docker => "docker".to_owned(),
        Around::Podman => "podman".to_owned(),
    });
    // Set by VS Code and by Codespaces in their containers.
    let devcontainer = ["REMOTE_CONTAINERS", "CODESPACES"]
        .into_iter()
        .any(|name| env::var_os(name).is_some());
    if devcontainer {
        return Some(DEVCONTAINER.to_owned());
    }
    // Where systemd writes down what it was started in, see systemd(1).
    let systemd = || fs::read_to_string("/run/systemd/container").ok();
    let name = seen.or_else(|| env::var("container").ok()).or_else(systemd)?;
    Some(name.trim().to_owned())
}

/// A value of os-release(5).
fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .ok()?;
    let value =
        text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// The command that installs this on this distribution, and a general word
/// where that is not known.
pub fn install(debian: &str, others: &str) -> String {
    let family = [os_release("ID"), os_release("ID_LIKE")];
    let family = family.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let is = |names: &[&str]| {
        family.split_whitespace().any(|one| names.contains(&one))
    };
    if is(&["debian", "ubuntu"]) {
        format!("`sudo apt install {debian}`")
    } else if is(&["fedora", "rhel", "centos"]) {
        format!("`sudo dnf install {others}`")
    } else if is(&["arch"]) {
        format!("`sudo pacman -S --needed {others}`")
    } else if is(&["suse", "opensuse"]) {
        format!("`sudo zypper install {others}`")
    } else if is(&["alpine"]) {
        format!("`sudo apk add {others}`")
    } else {
        format!("install the package {others}")
    }
}

/// A program of this machine.
pub fn find(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).collect();
    let places = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places
        .into_iter()
        .find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok())
}
