//! Every sentence that this crate can say.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;

/// Writes the enum, its names, its sentences and its examples from one table,
/// so that none of them can be forgotten.
macro_rules! causes {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($field:ident: $example:literal),* } = $sentence:literal;
    )*) => {
        /// Why a stage failed: what was seen in the machine, and with it the
        /// way out. Displayed, it is the sentence after `hint:`.
        ///
        /// Every field is text that is ready to be shown: paths are quoted as
        /// a shell needs it, and nothing in it breaks the line.
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub enum Cause {
            $(
                $(#[$doc])*
                $name {
                    $(
                        #[doc = concat!("As in `", $example, "`.")]
                        $field: String,
                    )*
                },
            )*
        }

        impl Cause {
            /// The name of every cause, in the order of the stages.
            pub const ALL: &[&str] = &[$(stringify!($name)),*];

            /// One of each, with values as they could be.
            pub fn examples() -> Vec<Self> {
                vec![$(Self::$name { $($field: $example.to_owned()),* }),*]
            }

            /// A name that stays when the sentence is worded anew.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => stringify!($name),)*
                }
            }
        }

        impl fmt::Display for Cause {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name { $($field),* } => write!(f, $sentence),)*
                }
            }
        }
    };
}

causes! {
    // Namespaces.

    /// Something between us and the kernel answers in its place.
    SeccompFilter {
        call: "unshare(2)",
        way_out: "start the container that we are in with `docker run \
                  --security-opt seccomp=unconfined …`"
    } = "a seccomp filter refuses {call}: {way_out}";

    /// There is neither a user namespace nor a private mount table in one.
    Chroot {
        forbidden: "a user namespace",
        sign: "/ is not a mount point"
    } = "this process is in a chroot ({sign}), where the kernel refuses \
         {forbidden}: leave it with `exit` and run this outside";

    /// Debian's own switch, see README.Debian of the kernel.
    UnprivilegedUsernsClone {} =
        "this kernel lets only root make user namespaces \
         (kernel.unprivileged_userns_clone is 0): `sudo sysctl -w \
         kernel.unprivileged_userns_clone=1`";

    /// Ubuntu's switch, on by default since 24.04.
    AppArmorUserns {} =
        "AppArmor keeps ordinary users' programs from using user namespaces: \
         `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or \
         give this program a profile with `userns,` in /etc/apparmor.d";

    /// Such as `docker-default`, which denies every mount.
    AppArmorProfile {
        profile: "docker-default",
        way_out: "start the container that we are in with `docker run \
                  --security-opt apparmor=unconfined …`"
    } = "the AppArmor profile {profile} confines this process and denies \
         this: {way_out}";

    /// A user namespace was made and its map never written.
    NoMapping { uid: "65534" } =
        "this process runs as uid {uid}, which its user namespace does not \
         map: start it with `unshare --user --map-root-user …`";

    /// A switch of user_namespaces(7) or namespaces(7) at zero.
    NamespacesOff { switch: "user.max_user_namespaces" } =
        "{switch} is 0, so no such namespace may be made: `sudo sysctl -w \
         {switch}=10000`";

    /// The kernel's limit, see pid_namespaces(7).
    NestedTooDeep { depth: "33" } =
        "this process is already {depth} PID namespaces deep and the kernel \
         allows no more: run it further outside, after `exit`";

    /// The kernel was built without it.
    NamespaceMissing { kind: "user" } =
        "this kernel knows no {kind} namespaces: boot one that is built with \
         CONFIG_NAMESPACES, such as the distribution's own";

    /// A user namespace is for a whole process, see unshare(2).
    ManyThreads { threads: "4" } =
        "this process has {threads} threads, and only a process with a single \
         one can enter a user namespace: call unshare(2) before any thread is \
         started";

    /// The kernel asks for it since Linux 5.12, see user_namespaces(7).
    NoSetFcap {} =
        "root without CAP_SETFCAP cannot be root of a user namespace: run \
         this as an ordinary user (`setpriv --reuid 1000 --regid 1000 \
         --clear-groups …`), or leave root that capability (`docker run \
         --cap-add SETFCAP …`)";

    /// Everywhere else that a capability is asked for.
    NoCapability {
        capability: "CAP_SYS_ADMIN",
        way_out: "run it as root with `sudo …`"
    } =
        "this process lacks {capability}: {way_out}";

    // The process.

    /// `/proc/self` is what we start and what we write our maps to.
    NoProc {} =
        "/proc is not mounted here: `mount -t proc proc /proc` as root";

    /// And so the maps cannot be written, nor a new one be mounted.
    ProcReadOnly { point: "/proc" } =
        "{point} is mounted read-only: `mount -o remount,bind,rw {point}` as \
         root, outside of the container or sandbox that we are in";

    /// RLIMIT_NPROC, see getrlimit(2).
    ProcessLimit { limit: "100" } =
        "this user may have {limit} processes and threads and has them \
         already: end some, or `ulimit -u` with a larger number";

    /// The pids controller of the group that we are in, or of one above it.
    PidsLimit { limit: "100", group: "/sys/fs/cgroup/pids/a" } =
        "the cgroup {group} may hold {limit} processes and holds them \
         already: end some, or `echo max > {group}/pids.max` as root";

    /// RLIMIT_NOFILE, see getrlimit(2).
    OpenFiles { limit: "1024" } =
        "this process may have {limit} open files: `ulimit -n` with a larger \
         number, in the shell that starts it";

    /// Arguments and environment, see execve(2).
    ArgumentsTooLong { size: "2097000", limit: "2097152" } =
        "arguments and environment take {size} bytes of the {limit} that the \
         kernel hands on: pass them through a file or a pipe";

    /// Of sethostname(2).
    HostnameTooLong { length: "65" } =
        "a host name has at most 64 bytes and this one has {length}: \
         shorten it, as in `--hostname container`";

    // The root.

    /// What should become the root does not exist.
    NoRoot { path: "fs" } =
        "there is no {path}: name another directory with `--rootfs DIR`, or \
         leave the option away and a root is built in fs";

    /// Such as a tar archive.
    RootIsFile { path: "alpine.tar" } =
        "{path} is not a directory: name one with `--rootfs DIR`";

    /// In a user namespace, root is still who we were outside.
    DirectoryClosed { path: "/root", uid: "1000" } =
        "{path} does not let uid {uid} through: `chmod o+x {path}` as its \
         owner, or take a directory elsewhere";

    /// Where proc or a tmpfs should go.
    NoDirectory { path: "fs/proc" } =
        "there is no directory {path}: `mkdir -p {path}`";

    /// Something else is in the way.
    NotDirectory { path: "fs/proc" } =
        "{path} is not a directory: `mv {path} {path}.old && mkdir {path}`";

    /// A mount that followed it would land on the host.
    LinkInRoot { path: "fs/proc", target: "/victim" } =
        "{path} is a symbolic link to {target} and no place to mount on: \
         `rm {path} && mkdir {path}`";

    /// The host has no such device.
    NoDevice { path: "/dev/full" } =
        "this machine has no {path}: `ls /dev` shows what it has, and a \
         container around us could have been given more";

    // Mounts.

    /// A part of `/proc` is hidden, so the kernel shows no other proc.
    ProcMasked {
        path: "/proc/kcore",
        way_out: "start the container that we are in with `docker run \
                  --security-opt systempaths=unconfined …`"
    } = "a mount on {path} hides a part of /proc, and the kernel allows no \
         new proc that would show it: {way_out}";

    /// See pivot_root(2).
    RootIsInitramfs {} =
        "/ is the initramfs, which cannot be swapped: move to a file system \
         of your own first (`mount -t tmpfs tmpfs /new`, copy, `exec \
         switch_root /new /init`)";

    /// See pivot_root(2).
    SharedMount { point: "/" } =
        "the mount on {point} is shared with other mount tables: `mount \
         --make-rprivate /` in the new mount namespace comes first";

    /// See pivot_root(2).
    SameRoot {} =
        "the new root is / itself, and there is nothing to swap it with: name \
         another directory, or leave --rootfs away for ./fs";

    /// See pivot_root(2).
    NotMountPoint { path: "/home/me/fs" } =
        "{path} is not a mount point: `mount --bind {path} {path}` in the new \
         mount namespace comes first";

    // Control groups.

    /// No hierarchy at all.
    CgroupNotMounted {} =
        "no cgroup file system is mounted that we could see: run this outside \
         of the container or chroot that we are in, or where there is none, \
         `mount -t cgroup2 cgroup2 /sys/fs/cgroup` as root";

    /// As Docker gives it to its containers.
    CgroupReadOnly {
        point: "/sys/fs/cgroup",
        way_out: "start the container that we are in with `docker run \
                  --privileged …`"
    } = "{point} is mounted read-only: {way_out}";

    /// Version 2, with a systemd that would give us a group.
    CgroupNotDelegated { path: "/sys/fs/cgroup/user.slice", owner: "0" } =
        "{path} belongs to uid {owner}: ask systemd for a group of your own \
         with `systemd-run --user --scope -p Delegate=yes …`";

    /// Version 2 without one.
    CgroupNotOurs { path: "/sys/fs/cgroup", owner: "0" } =
        "{path} belongs to uid {owner}, and no systemd of yours is running \
         that could give you a group: run this as root with `sudo …`";

    /// Version 1 is handed down to nobody.
    CgroupV1 { path: "/sys/fs/cgroup/pids", owner: "0" } =
        "{path} belongs to uid {owner}, and cgroup v1 is not divided among \
         users: run this as root with `sudo …`";

    /// Root of a user namespace, or without its capabilities.
    CgroupOutside { path: "/sys/fs/cgroup", owner: "65534" } =
        "{path} belongs to uid {owner} and this root has no power over it: \
         run this outside of the container or user namespace that we are in";

    /// The kernel's command line says so.
    ControllerOff { controller: "memory" } =
        "the kernel has the {controller} controller switched off: boot it \
         with `cgroup_enable={controller}` on its command line (on a \
         Raspberry Pi: /boot/firmware/cmdline.txt)";

    /// Version 1 needs a mount for each.
    ControllerNotMounted { controller: "memory" } =
        "the {controller} controller is not mounted: `mkdir -p \
         /sys/fs/cgroup/{controller} && mount -t cgroup -o {controller} \
         cgroup /sys/fs/cgroup/{controller}` as root";

    /// Version 2: the groups above keep it.
    ControllerNotDelegated { controller: "cpu", group: "/sys/fs/cgroup/a" } =
        "the groups above {group} do not hand the {controller} controller \
         down: run this as root with `sudo …`, or put `Delegate=cpu memory \
         pids` under `[Service]` with `sudo systemctl edit user@.service` and \
         log in again";

    /// Version 1 with swap left out of the accounts.
    SwapNotCounted {} =
        "the kernel does not count swap, so a limit on memory could be \
         evaded: boot it with `swapaccount=1` on its command line";

    /// "No internal processes", see cgroups(7).
    InternalProcesses { group: "/sys/fs/cgroup/a" } =
        "{group} holds processes, and such a group cannot hand controllers \
         down: move them to a leaf (`mkdir {group}/leaf && for p in $(cat \
         {group}/cgroup.procs); do echo $p > {group}/leaf/cgroup.procs; done`)";

    /// It cannot be removed.
    GroupNotEmpty { group: "/sys/fs/cgroup/a", pids: "123 124" } =
        "processes are left in {group}: `kill -9 {pids}`";

    // The command.

    /// In our own PATH.
    CommandNotFound { command: "tehre", path: "/usr/bin:/bin" } =
        "no directory of PATH has {command} ({path}): give its path, or \
         install it";

    /// The host's programs are not there.
    CommandNotInRoot {
        command: "vim",
        path: "/usr/bin:/bin",
        bin: "fs/bin"
    } = "{command} is looked up inside the root, where no directory of PATH \
         has it ({path}): `ls {bin}` shows what there is, and a program of the \
         host has to be copied there with its libraries";

    /// And not to something that is there.
    DanglingLink { file: "fs/bin/sh", target: "fs/bin/dash" } =
        "{file} is a symbolic link and leads to {target}, which does not \
         exist: put there what is missing";

    /// The `#!` line names it.
    MissingInterpreter { file: "fs/hello", interpreter: "fs/bin/bash" } =
        "{file} is there, but {interpreter}, which its `#!` line names, is \
         not: copy that too, or `sed -i '1s|.*|#!/bin/sh|' {file}`";

    /// The classic after copying only the binary.
    MissingLoader {
        file: "fs/bin/bash",
        loader: "fs/lib64/ld-linux-x86-64.so.2"
    } =
        "{file} is there, but {loader}, which loads it, is not: copy that \
         too, with the libraries that `ldd {file}` lists";

    /// No `x` for us.
    NotExecutable { file: "fs/hello.sh" } =
        "{file} may not be executed: `chmod +x {file}`";

    /// Not a program.
    IsDirectory { file: "fs/bin" } =
        "{file} is a directory: name a program in it, `ls {file}` shows them";

    /// The mount forbids it.
    NoexecMount { file: "/tmp/hello" } =
        "{file} is on a file system that is mounted noexec, as `findmnt -T \
         {file}` shows: copy it to another one";

    /// One such directory turns "not found" into "permission denied".
    PathClosed { directory: "/root/bin", command: "hello" } =
        "{directory} in PATH is closed to us, and no other directory of PATH \
         has {command}: give its path, or take {directory} out of PATH";

    /// Made for another machine.
    ForeignArchitecture {
        file: "fs/hello",
        theirs: "ARM 64-bit architecture",
        ours: "AMD x86-64 architecture"
    } =
        "{file} is made for {theirs} and this machine is {ours}: take the one \
         that is made for it (`docker pull --platform`, `rustup target add`)";

    /// Neither a program nor a script.
    NoInterpreterLine { file: "fs/hello" } =
        "{file} is no ELF program and has no `#!` line: `sed -i '1i \
         #!/bin/sh' {file}` if it is meant for the shell";
}

/// A path or name as a shell takes it and on one line.
pub(crate) fn quoted(name: impl AsRef<std::ffi::OsStr>) -> String {
    let name = name.as_ref();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:,=@%".contains(c);
    match name.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(plain) => {
            text.to_owned()
        }
        Some(text) if !text.chars().any(char::is_control) => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        _ => format!("$'{}'", c_quoted(name.as_bytes())),
    }
}

/// The inside of `$'…'`, see bash(1): it may hold any byte.
fn c_quoted(name: &[u8]) -> String {
    let mut quoted = String::new();
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            quoted += &match c {
                '\'' | '\\' => format!("\\{c}"),
                c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
                c => c.to_string(),
            };
        }
        for byte in chunk.invalid() {
            quoted += &format!("\\x{byte:02x}");
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_sentence_is_one_line_with_a_way_out() {
        for cause in Cause::examples() {
            let sentence = cause.to_string();
            assert!(!sentence.contains('\n'), "{sentence}");
            assert!(!sentence.contains("  "), "{sentence}");
            assert!(sentence.contains(": "), "no way out: {sentence}");
        }
    }

    #[test]
    fn odd_names_stay_on_the_line_and_paste_well() {
        assert_eq!(quoted("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("$(reboot)"), "'$(reboot)'");
        assert_eq!(quoted("a\nb'\x1b"), r"$'a\u000ab\'\u001b'");
        assert_eq!(quoted(""), "''");
        let bytes = OsStr::from_bytes(b"fs\x80 \xff");
        assert_eq!(quoted(bytes), r"$'fs\x80 \xff'");
    }
}
