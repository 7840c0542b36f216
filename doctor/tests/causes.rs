//! Every sentence, provoked: by really doing what has to fail, or, where this
//! machine cannot be brought to that, by the error alone in front of a file
//! that says what another machine's would. The latter are marked `pretend`.

use std::env;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use doctor::Cause;
use tempfile::TempDir;

/// An ordinary user, who needs no entry in /etc/passwd.
const USER: [&str; 6] =
    ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "sh", "-c"];

fn am_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A folder that every user can write to, with the example `fail` in it.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    // Not `fs::copy`: what another test starts meanwhile would inherit the file
    // that is being written, and until then it could not be executed.
    let copied = Command::new("cp").arg(example()).arg(folder.path()).status();
    assert!(copied.unwrap().success());
    folder
}

/// Built beside this test, `target/debug/deps/causes-…`.
fn example() -> PathBuf {
    let mut path = env::current_exe().unwrap();
    assert!(path.pop() && path.pop());
    path.push("examples/fail");
    assert!(path.exists(), "first `cargo build -p doctor --example fail`");
    path
}

/// Runs this shell script, which ends in a call of `$FAIL`, as an ordinary
/// user, and expects this cause, or `None`.
#[track_caller]
fn user_sees(cause: &str, script: &str) -> String {
    let words = if am_root() { &USER[..] } else { &USER[4..] };
    sees(cause, words, script)
}

/// The same as root, in a mount namespace of its own; `$USER` turns a command
/// into an ordinary user's.
#[track_caller]
fn root_sees(cause: &str, script: &str) -> String {
    if !am_root() {
        return skipped(cause, "needs root");
    }
    sees(cause, &["unshare", "--mount", "sh", "-c"], script)
}

fn skipped(cause: &str, why: &str) -> String {
    let _ = writeln!(io::stderr(), "skipped: {cause}: {why}");
    String::new()
}

#[track_caller]
fn sees(cause: &str, words: &[&str], script: &str) -> String {
    let folder = folder();
    let path = folder.path();
    let output = Command::new(words[0])
        .args(&words[1..])
        .arg(format!("set -e\n{script}"))
        .current_dir(path)
        .env("FAIL", path.join("fail"))
        .env("USER", USER[..4].join(" "))
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let output = String::from_utf8_lossy(&output.stdout).replace("\n\n", "\n");
    if let Some(why) = output.strip_prefix("skip: ") {
        return skipped(cause, why.trim());
    }
    let hint = output.strip_suffix('\n').and_then(|it| it.lines().nth(1));
    let hint = hint.unwrap_or_default().to_owned();
    let two = output.lines().count() == 2;
    assert!(
        hint.starts_with(&format!("{cause}:")) && two,
        "{cause} was expected of\n{script}\nand there came\n{output}{errors}"
    );
    // Such paths are another one each time.
    hint.replace(path.to_str().unwrap(), "DIR")
}

#[track_caller]
fn holds(hint: &str, part: &str) {
    assert!(hint.is_empty() || hint.contains(part), "{part:?} not in {hint}");
}

/// No sentence without a test, and no test of one that is gone.
#[test]
fn every_cause_is_provoked_here() {
    let mut source = include_str!("causes.rs").to_owned();
    source.retain(|c| !c.is_whitespace());
    for cause in Cause::ALL {
        let called = source.contains(&format!("_sees(\"{cause}\","));
        let named = source.contains(&format!("\\n{cause}:"));
        assert!(called || named, "no test provokes {cause}");
    }
    for cause in source.split("_sees(\"").skip(1) {
        let cause = cause.split('"').next().unwrap();
        let known = cause == "None" || Cause::ALL.contains(&cause);
        assert!(known || cause.contains('{'), "there is no {cause}");
    }
}

// Namespaces.

#[test]
fn seccomp() {
    let hint = user_sees("SeccompFilter", "$FAIL filter unshare unshare uts");
    holds(&hint, "refuses unshare(2): ");
    user_sees("SeccompFilter", "$FAIL filter user unshare user,uts");
    user_sees("SeccompFilter", "unshare -Urm $FAIL filter mount private");
    user_sees("SeccompFilter", "unshare -Ur $FAIL filter chroot chroot .");
    // As in Docker with `--cap-add SYS_ADMIN`: mounts, and no pivot_root(2).
    let hint = user_sees(
        "SeccompFilter",
        "unshare -Urm $FAIL filter pivot_root pivot .",
    );
    holds(&hint, "refuses pivot_root(2): ");
    // A filter that has nothing to do with it.
    user_sees("NoCapability", "$FAIL filter reboot unshare uts");
    user_sees("NoCapability", "$FAIL filter user unshare uts");
    user_sees("NoCapability", "$FAIL filter reboot pivot .");
}

#[test]
fn the_container_around_us_is_named() {
    let hint = user_sees(
        "SeccompFilter",
        "container=podman $FAIL filter unshare unshare user",
    );
    holds(&hint, "`podman run --security-opt seccomp=unconfined …`");
    // A root with Docker's marks; the rest is this machine's own.
    let docker = "mkdir box; mount -t tmpfs box box; cp fail box; cd box
        for path in /*; do
            if [ -L $path ]; then
                mkdir -p root; cp -P $path root/
            else case $path in
                /bin | /sbin | /lib* | /usr | /proc | /sys | /dev | /tmp)
                    mkdir -p root$path; mount --rbind $path root$path ;;
            esac fi
        done
        mkdir root/etc; touch root/etc/hostname file";
    let marked = "touch root/.dockerenv
        mount --bind file root/etc/hostname
        chroot root $FAIL filter unshare unshare user";
    let hint = root_sees("SeccompFilter", &format!("{docker}\n{marked}"));
    holds(&hint, "`docker run --security-opt seccomp=unconfined …`");
    // Only the one that an image leaves.
    let left = "touch root/.dockerenv
        chroot root $FAIL filter unshare unshare user";
    let hint = root_sees("SeccompFilter", &format!("{docker}\n{left}"));
    holds(&hint, "outside of the container or sandbox");
}

#[test]
fn chroot() {
    let tree = "mkdir -p root
        mount -t tmpfs root root
        mkdir -p root/in/proc root/in/tmp
        for dir in usr bin lib lib64; do
            [ ! -e /$dir ] || {
                mkdir root/in/$dir; mount --bind /$dir root/in/$dir; }
        done
        mount --rbind /proc root/in/proc
        cp fail root/in/";
    let hint = root_sees(
        "Chroot",
        &format!("{tree}; chroot root/in $USER /fail unshare user"),
    );
    holds(&hint, "(its / is not a mount point), where the kernel refuses a us");
    root_sees("Chroot", &format!("{tree}; chroot root/in /fail private"));
    root_sees("Chroot", &format!("{tree}; chroot root/in /fail pivot /usr"));
    // In an own mount namespace it looks like any other root, and yet.
    let hint = root_sees(
        "Chroot",
        &format!(
            "{tree}; mount --rbind root/in root/in
            chroot root/in $USER /fail unshare user; exit"
        ),
    );
    holds(&hint, "DIR/root/in), where");
    // Nothing to see without /proc, and so nothing to say.
    root_sees(
        "None",
        &format!(
            "{tree}; umount -l root/in/proc
            chroot root/in $USER /fail unshare user"
        ),
    );
}

#[test]
fn switches() {
    let kernel = |switch, errno| {
        format!(
            "mkdir kernel; echo {switch} > kernel/{}
            mount --bind kernel /proc/sys/kernel
            $USER $FAIL pretend {errno} unshare user,uts",
            match switch {
                0 => "unprivileged_userns_clone",
                _ => "apparmor_restrict_unprivileged_userns",
            }
        )
    };
    let hint = root_sees("UnprivilegedUsernsClone", &kernel(0, "EPERM"));
    holds(&hint, "`sudo sysctl -w kernel.unprivileged_userns_clone=1`");
    let hint = root_sees("AppArmorUserns", &kernel(1, "EACCES"));
    holds(&hint, "kernel.apparmor_restrict_unprivileged_userns=0`");
    root_sees("AppArmorUserns", &kernel(1, "EPERM"));
    user_sees("None", "$FAIL pretend EPERM unshare user");
    user_sees("None", "$FAIL pretend EACCES unshare user");
    user_sees("None", "$FAIL pretend ENOENT unshare user");
}

#[test]
fn apparmor_profiles() {
    let label = |label, rest| {
        format!(
            "printf '%s\\n' '{label}' > label
            mount --bind label /proc/$$/attr/current
            exec $FAIL pretend {rest}"
        )
    };
    let restricted = "unprivileged_userns (enforce)";
    let map = label(restricted, "EPERM map");
    root_sees("AppArmorUserns", &map);
    root_sees("AppArmorUserns", &label(restricted, "EACCES setgroups"));
    root_sees("AppArmorUserns", &label(restricted, "EACCES private"));
    root_sees("AppArmorUserns", &label(restricted, "EPERM hostname h"));
    let docker = "docker-default (enforce)";
    let hint = root_sees("AppArmorProfile", &label(docker, "EACCES private"));
    holds(&hint, "profile docker-default confines");
    root_sees("None", &label("unconfined", "EACCES private"));
    root_sees("None", &label("docker-default (complain)", "EACCES private"));
    // What SELinux would say.
    root_sees("None", &label("system_u:system_r:x:s0", "EACCES private"));
}

#[test]
fn no_mapping() {
    let hint = user_sees("NoMapping", "unshare -U $FAIL unshare user");
    holds(&hint, "as uid 65534, which");
}

#[test]
fn namespaces_off() {
    for (kind, file) in [
        ("user", "user"),
        ("uts", "uts"),
        ("pid", "pid"),
        ("mnt", "mnt"),
        ("cgroup", "cgroup"),
    ] {
        let hint = user_sees(
            "NamespacesOff",
            &format!(
                "unshare -Ur sh -c '
                echo 0 > /proc/sys/user/max_{file}_namespaces
                $FAIL unshare user,{kind}'"
            ),
        );
        holds(&hint, &format!("`sudo sysctl -w user.max_{file}_namespaces="));
    }
    // At the limit, which cannot be seen.
    user_sees(
        "None",
        "unshare -Ur sh -c '
        echo 1 > /proc/sys/user/max_uts_namespaces
        unshare -u $FAIL unshare uts'",
    );
}

#[test]
fn nested_too_deep() {
    let nested = "unshare --pid --fork ".repeat(32);
    let deepest = format!("{nested} $FAIL unshare pid");
    let hint = user_sees(
        "NestedTooDeep",
        &format!("unshare -Ur sh -c '{deepest} || echo skip: in a container'"),
    );
    holds(&hint, "already 33 PID namespaces deep");
}

#[test]
fn namespace_missing() {
    // pretend: this kernel has them all.
    let hint = root_sees(
        "NamespaceMissing",
        "mkdir ns; touch ns/mnt ns/user
        mount --bind ns /proc/$$/ns
        exec $FAIL pretend EINVAL unshare user,cgroup",
    );
    holds(&hint, "no cgroup namespaces");
    user_sees("None", "$FAIL pretend EINVAL unshare user");
}

#[test]
fn many_threads() {
    let hint = user_sees("ManyThreads", "$FAIL threads unshare user");
    holds(&hint, "has 2 threads");
}

#[test]
fn capabilities() {
    root_sees("NoSetFcap", "setpriv --bounding-set=-setfcap $FAIL map");
    user_sees("None", "$FAIL pretend EPERM map");
    let hint = user_sees("NoCapability", "$FAIL unshare uts");
    holds(&hint, "lacks CAP_SYS_ADMIN: run it as root with `sudo …`");
    let hint = user_sees("NoCapability", "$FAIL chroot .");
    holds(&hint, "lacks CAP_SYS_CHROOT: ");
    let hint = user_sees("NoCapability", "container=podman $FAIL chroot .");
    holds(&hint, "`podman run --cap-add SYS_CHROOT …`");
    user_sees("NoCapability", "$FAIL private");
    user_sees("NoCapability", "$FAIL bind .");
    user_sees("NoCapability", "$FAIL pivot .");
    user_sees("NoCapability", "mkdir proc; $FAIL proc proc");
}

// The process.

#[test]
fn no_proc() {
    root_sees("NoProc", "umount -l /proc; $USER $FAIL map");
    root_sees("NoProc", "umount -l /proc; $FAIL start");
    root_sees("NoProc", "umount -l /proc; $FAIL status");
    root_sees("NoProc", "umount -l /proc; $FAIL find");
}

#[test]
fn proc_read_only() {
    let proc = "mount -o remount,bind,ro /proc";
    let hint = root_sees("ProcReadOnly", &format!("{proc}; $USER $FAIL map"));
    holds(&hint, "`mount -o remount,bind,rw /proc`");
    root_sees(
        "ProcReadOnly",
        &format!(
            "{proc}; mkdir p
            $USER unshare -Ump --keep-caps --fork $FAIL proc p"
        ),
    );
}

#[test]
fn limits() {
    let hint = user_sees("ProcessLimit", "prlimit --nproc=1 $FAIL start");
    holds(&hint, "may have 1 processes");
    user_sees("ProcessLimit", "prlimit --nproc=1 $FAIL spawn true");
    let hint = user_sees("OpenFiles", "prlimit --nofile=4 $FAIL start");
    holds(&hint, "may have 4 open files");
}

#[test]
fn pids_limit() {
    let hint = root_sees(
        "PidsLimit",
        "group=/sys/fs/cgroup/pids/doctor-$$
        mkdir $group || { echo skip: no cgroup v1 of our own; exit; }
        trap 'rmdir $group' EXIT
        sh -c 'echo $$ > '$group'/cgroup.procs
            echo 1 > '$group'/pids.max
            exec $FAIL start'",
    );
    holds(&hint, "may hold 1 processes");
}

#[test]
fn arguments_too_long() {
    let folder = folder();
    // Two of them, since one may not be longer than 128 KiB.
    let attempt = |length: usize| {
        let output = Command::new("prlimit")
            .arg("--stack=524288")
            .arg(folder.path().join("fail"))
            .args(["start", &"a".repeat(60_000), &"b".repeat(length)])
            .env_clear()
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // The longest with which it starts: what it adds is then too much.
    let (mut fits, mut too_long) = (1, 131_000);
    while too_long - fits > 1 {
        let middle = (fits + too_long) / 2;
        match attempt(middle).is_empty() {
            true => too_long = middle,
            false => fits = middle,
        }
    }
    let output = attempt(fits);
    assert!(output.contains("\nArgumentsTooLong: "), "{output}");
    assert!(output.contains(" of the 131072 that "), "{output}");
    assert_eq!(attempt(1), "it works\n");
}

#[test]
fn hostname_too_long() {
    let script = "unshare -Ur $FAIL hostname $(printf %065d 0)";
    let hint = user_sees("HostnameTooLong", script);
    holds(&hint, "this one has 65");
}

// The root.

#[test]
fn roots() {
    let inside = "unshare -Urm $FAIL";
    for stage in ["use", "chroot", "bind", "pivot"] {
        let hint = user_sees("NoRoot", &format!("{inside} {stage} fs/root"));
        holds(&hint, "there is no fs: ");
        let hint = user_sees(
            "DanglingLink",
            &format!("ln -s no fs; {inside} {stage} fs/root"),
        );
        holds(&hint, "fs is a symbolic link and leads to no, which");
    }
    for stage in ["use", "chroot", "pivot"] {
        let hint = user_sees("RootIsFile", &format!("{inside} {stage} fail"));
        holds(&hint, "fail is not a directory");
    }
    let closed = "mkdir -p closed/fs; chmod 0 closed";
    let hint = user_sees(
        "DirectoryClosed",
        &format!(
            "trap 'chmod 700 closed' EXIT; {closed}; $FAIL chroot closed/fs"
        ),
    );
    holds(&hint, "closed does not let uid ");
    user_sees(
        "DirectoryClosed",
        &format!("trap 'chmod 700 closed' EXIT; {closed}; $FAIL use closed/fs"),
    );
    let hint = root_sees(
        "DirectoryClosed",
        &format!("{closed}; $USER unshare -Urm $FAIL chroot closed/fs"),
    );
    holds(&hint, "uid 54321 through: `chmod o+x closed`");
    root_sees(
        "DirectoryClosed",
        &format!("{closed}; $USER unshare -Urm $FAIL bind closed/fs"),
    );
    root_sees(
        "DirectoryClosed",
        &format!("{closed}; $USER unshare -Urmp $FAIL proc closed/fs"),
    );
}

#[test]
fn places() {
    let inside = "unshare -Urmp --fork";
    let hint = user_sees(
        "NoDirectory",
        &format!("mkdir fs; {inside} $FAIL proc fs/proc"),
    );
    holds(&hint, "`mkdir -p fs/proc`");
    let hint = user_sees(
        "NotDirectory",
        &format!("mkdir fs; touch fs/proc; {inside} $FAIL proc fs/proc"),
    );
    holds(&hint, "`mv fs/proc fs/proc.old && mkdir fs/proc`");
    let hint = user_sees(
        "LinkInRoot",
        &format!("mkdir fs; ln -s '/a b' fs/proc; {inside} $FAIL proc fs/proc"),
    );
    holds(&hint, "symbolic link to '/a b' and");
    // An empty tmpfs for a root.
    let empty = "mkdir -p t; mount -t tmpfs t t; cp fail t/";
    let library = "for lib in $(ldd fail | grep -o '/[^ ]*'); do
            mkdir -p t$(dirname $lib); cp $lib t$lib; done";
    let hint = user_sees(
        "NoDirectory",
        &format!(
            "{inside} sh -c \"{}; chroot t /fail proc /proc\"",
            format!("{empty}; {library}").replace('$', "\\$")
        ),
    );
    holds(&hint, "`mkdir -p fs/proc`");
    let hint = user_sees(
        "NoDirectory",
        &format!(
            "{inside} sh -c \"{}; chroot t /fail device /dev/null\"",
            format!("{empty}; {library}").replace('$', "\\$")
        ),
    );
    holds(&hint, "`mkdir -p fs/dev`");
    for (cause, make, way_out) in [
        ("NotDirectory", "touch", "`mv fs/dev fs/dev.old && mkdir fs/dev`"),
        ("LinkInRoot", "ln -s ../no", "`rm fs/dev && mkdir fs/dev`"),
    ] {
        let script = format!("{empty}; {library}; {make} t/dev");
        let hint = user_sees(
            cause,
            &format!(
                "{inside} sh -c \"{}; chroot t /fail device /dev/null\"",
                script.replace('$', "\\$")
            ),
        );
        holds(&hint, way_out);
    }
    // Gone since somebody looked.
    for (cause, make) in [
        ("NoRoot", ":"),
        ("RootIsFile", "touch fs"),
        ("DanglingLink", "ln -s no fs"),
    ] {
        user_sees(cause, &format!("{make}; {inside} $FAIL proc fs/proc"));
    }
    let hint = user_sees(
        "NoDevice",
        &format!("mkdir -p fs/dev; {inside} $FAIL device fs/dev/nosuch"),
    );
    holds(&hint, "has no /dev/nosuch");
}

// Mounts.

#[test]
fn proc_masked() {
    let inside = "mkdir p; $USER unshare -Urmp --fork $FAIL proc p";
    let mask = "mount -t tmpfs mask /proc/sys";
    let hint = root_sees("ProcMasked", &format!("{mask}; {inside}"));
    holds(&hint, "a mount on /proc/sys hides");
    let hint = root_sees(
        "ProcMasked",
        &format!(
            "mount --bind /dev/null /proc/cmdline; export container=podman
            {inside}"
        ),
    );
    holds(&hint, "`podman run --security-opt unmask=ALL …`");
}

#[test]
fn pivot_root() {
    let inside = "unshare -Urm sh -c";
    user_sees("SameRoot", &format!("{inside} '$FAIL pivot /'"));
    let hint = user_sees(
        "NotMountPoint",
        &format!("mkdir fs; {inside} '$FAIL pivot fs'"),
    );
    holds(&hint, "`mount --bind DIR/fs DIR/fs`");
    let bound = "mkdir fs; mount --bind fs fs";
    let hint = root_sees(
        "SharedMount",
        &format!("mount --make-shared /; {bound}; $FAIL pivot fs"),
    );
    holds(&hint, "--make-rprivate /`");
    // pretend: the initramfs is gone when a machine runs.
    root_sees(
        "RootIsInitramfs",
        "echo '1 1 0:2 / / rw - rootfs rootfs rw' > table
        mount --bind table /proc/$$/mountinfo
        exec $FAIL pretend EINVAL pivot .",
    );
}

// Control groups.

/// A machine with cgroup v2 at `cg`, where we are in the group `cg/me`, or
/// what `changes` makes of it; seen by this shell and what it turns into.
fn v2(changes: &str) -> String {
    format!(
        "mkdir -p cg/me
        echo '1 0 8:1 / / rw - ext4 disk rw' > table
        echo \"2 1 0:30 / $PWD/cg rw - cgroup2 cgroup2 rw\" >> table
        echo cpu memory pids > cg/cgroup.controllers
        echo memory pids > cg/me/cgroup.controllers
        touch cg/me/cgroup.procs
        echo 0::/me > group
        printf 'memory 0 1 1\\npids 0 1 1\\ncpu 0 1 1\\n' > controllers
        {changes}
        mount --bind controllers /proc/cgroups
        mount --bind group /proc/$$/cgroup
        mount --bind table /proc/$$/mountinfo
        exec "
    )
}

#[test]
fn cgroup_not_mounted() {
    root_sees("CgroupNotMounted", "umount -Rl /sys; $FAIL find");
    root_sees("CgroupNotMounted", "umount -Rl /sys; $FAIL mkdir /sys/fs/x");
    user_sees("None", "$FAIL find");
}

#[test]
fn cgroup_read_only() {
    let hint = root_sees(
        "CgroupReadOnly",
        "for dir in /sys/fs/cgroup/pids /sys/fs/cgroup; do
            [ ! -e $dir/cgroup.procs ] || break
        done
        mount -o remount,bind,ro $dir; $FAIL mkdir $dir/doctor-$$",
    );
    holds(&hint, " is mounted read-only: ");
}

#[test]
fn cgroup_of_somebody_else() {
    let attempt = "$USER $FAIL mkdir cg/me/new";
    let hint = root_sees("CgroupNotOurs", &(v2("") + attempt));
    holds(&hint, "cg/me belongs to uid 0");
    let systemd = "mount -t tmpfs run /run; mkdir -p /run/systemd/system
        mkdir -p /run/user/54321/systemd";
    let hint = root_sees("CgroupNotDelegated", &(v2(systemd) + attempt));
    holds(&hint, "`systemd-run --user --scope -p Delegate=yes …`");
    // A group of ours, and yet we may not leave the one that we are in.
    let ours = v2("mkdir cg/ours; chown 54321 cg/ours");
    let write = "$USER $FAIL pretend EACCES write cg/ours 0";
    let hint = root_sees("CgroupNotOurs", &(ours + write));
    holds(&hint, "cg/me/cgroup.procs belongs to uid 0");
    let v1 = v2("sed -i s/cgroup2/cgroup/g table");
    root_sees("CgroupV1", &(v1 + attempt));
    // Root of a container that is an ordinary user outside.
    let inside = "$USER unshare -Ur $FAIL mkdir cg/me/new";
    let hint = root_sees("CgroupOutside", &(v2("") + inside));
    holds(&hint, "cg/me belongs to uid 65534");
}

#[test]
fn cgroup_v1_of_this_machine() {
    let script = "cd /sys/fs/cgroup/pids 2> /dev/null || {
            echo skip: no cgroup v1; exit; }
        $FAIL mkdir doctor-$$";
    let hint = user_sees("CgroupV1", script);
    holds(&hint, "run this as root with `sudo …`");
}

#[test]
fn controllers() {
    let find = "$FAIL find";
    let hint = root_sees("ControllerNotDelegated", &(v2("") + find));
    holds(&hint, "do not hand the cpu controller down");
    let write = |file| format!("{}$FAIL write cg/me/new/{file} 9", v2(""));
    root_sees("ControllerNotDelegated", &write("cpu.max"));
    root_sees("None", &write("memory.max"));
    // A cgroup namespace, whose root is all that there is to see.
    let root = v2("echo pids memory > cg/cgroup.controllers");
    root_sees("ControllerNotDelegated", &(root + find));
    let off = v2("echo cpu pids > cg/cgroup.controllers
        echo cpu pids > cg/me/cgroup.controllers
        sed -i '/memory/s/1$/0/' controllers");
    let hint = root_sees("ControllerOff", &(off + find));
    holds(&hint, "`cgroup_enable=memory`");
    let v1 = v2("sed -i 's/cgroup2 cgroup2/cgroup cgroup/; s/$/,pids/' table
        echo 1:pids:/me > group");
    let hint = root_sees("ControllerNotMounted", &(v1 + find));
    holds(&hint, "`mkdir -p /sys/fs/cgroup/memory && mount -t cgroup -o mem");
}

#[test]
fn swap_not_counted() {
    // pretend: this kernel always counts it.
    let files = v2("mkdir cg/new; touch cg/new/memory.limit_in_bytes");
    let write = "$FAIL pretend ENOENT write cg/new/memory.memsw.limit_in_bytes";
    root_sees("SwapNotCounted", &(files + write));
}

#[test]
fn groups_with_processes() {
    // pretend: no controller can be handed down on this machine.
    let full = v2("echo 7 > cg/me/cgroup.procs");
    let write = "$FAIL pretend EBUSY write cg/me/cgroup.subtree_control";
    let hint = root_sees("InternalProcesses", &(full + write));
    holds(&hint, "mkdir cg/me/leaf && ");
    let hint = root_sees(
        "GroupNotEmpty",
        "for dir in /sys/fs/cgroup/pids /sys/fs/cgroup; do
            [ ! -e $dir/cgroup.procs ] || break
        done
        group=$dir/doctor-$$
        mkdir $group || { echo skip: no group may be made; exit; }
        sleep 60 & pid=$!
        trap 'kill $pid; wait $pid || true; rmdir $group' EXIT
        echo $pid > $group/cgroup.procs
        $FAIL rmdir $group",
    );
    holds(&hint, "`kill -9 ");
}

// The command.

/// What follows happens inside `fs`, as root of a user namespace.
fn inside(setup: &str, attempt: &str) -> String {
    format!(
        "mkdir -p fs/bin; cd fs; {setup}; cd ..
        unshare -Ur $FAIL --rootfs fs {attempt}"
    )
}

#[test]
fn command_not_found() {
    let hint = user_sees("CommandNotFound", "PATH=/bin:. $FAIL exec 'no such'");
    holds(&hint, "PATH has 'no such' (/bin:.)");
    let hint = user_sees("CommandNotInRoot", &inside(":", "nosuch"));
    holds(&hint, "has it (/usr/bin:/bin:/): `ls fs/bin` shows");
    user_sees("None", "$FAIL exec ./nosuch");
    // Whose PATH was it, and whose root is this?
    user_sees("None", "unshare -Urmpf --mount-proc $FAIL exec nosuch");
    root_sees("None", "umount -l /proc; $FAIL exec nosuch");
}

#[test]
fn pieces_missing() {
    let hint = user_sees("DanglingLink", "ln -s /no/sh sh; $FAIL exec ./sh");
    holds(&hint, "./sh is a symbolic link and leads to /no/sh, which");
    let link = inside("ln -s /no/sh bin/sh; ln -s ../no bin/no", "sh");
    let hint = user_sees("DanglingLink", &link);
    holds(&hint, "fs/bin/sh is a symbolic link and leads to fs/no/sh, which");
    // A folder on the way.
    let link = inside("rmdir bin; ln -s ../no bin", "/bin/sh");
    let hint = user_sees("DanglingLink", &link);
    holds(&hint, "fs/bin is a symbolic link and leads to fs/../no, which");
    let script = "printf '#! /no/bash -e\\n' > script; chmod +x script";
    let hint = user_sees(
        "MissingInterpreter",
        &format!("{script}; $FAIL exec ./script"),
    );
    holds(&hint, "./script is there, but /no/bash, which its `#!` line names");
    let hint = user_sees("MissingInterpreter", &inside(script, "/script"));
    holds(&hint, "fs/script is there, but fs/no/bash, which");
    user_sees("MissingInterpreter", &inside(script, "script"));
    // An interpreter that is a script of its own, one step further.
    let hint = user_sees(
        "MissingInterpreter",
        &format!(
            "{script}; echo \"#!$PWD/script\" > second; chmod +x second
            $FAIL exec ./second"
        ),
    );
    holds(&hint, "DIR/script is there, but /no/bash");
    // The classic: only the program is copied.
    let classic = inside("cp $FAIL bin/", "/bin/fail");
    let hint = user_sees("MissingLoader", &classic);
    holds(&hint, "fs/bin/fail is there, but fs/lib");
    holds(&hint, "`ldd fs/bin/fail`");
}

#[test]
fn not_executable() {
    let script = "echo '#!/bin/sh' > script";
    let run = format!("{script}; $FAIL exec ./script");
    let hint = user_sees("NotExecutable", &run);
    holds(&hint, "`chmod +x ./script`");
    let hint = user_sees("NotExecutable", &inside(script, "script"));
    holds(&hint, "`chmod +x fs/script`");
    user_sees(
        "NotExecutable",
        &format!(
            "{script}; echo \"#!$PWD/script\" > second; chmod +x second
            $FAIL exec ./second"
        ),
    );
    user_sees("IsDirectory", "$FAIL exec /usr");
    let hint = user_sees("IsDirectory", &inside(":", "/bin"));
    holds(&hint, "`ls fs/bin`");
    let hint = user_sees(
        "NoexecMount",
        "unshare -Urm sh -c '
        mkdir m; mount -t tmpfs -o noexec m m; cp fail m/
        $FAIL exec m/fail'",
    );
    holds(&hint, "`findmnt -T m/fail`");
    user_sees(
        "NoexecMount",
        "mkdir fs; unshare -Urm sh -c '
        mount -t tmpfs -o noexec m fs; cp fail fs/; $FAIL --rootfs fs fail'",
    );
    let closed = "mkdir closed; chmod 0 closed; trap 'rmdir closed' EXIT";
    let hint = user_sees(
        "PathClosed",
        &format!("{closed}; PATH=closed:/bin $FAIL exec nosuch"),
    );
    holds(&hint, "closed in PATH is closed to us");
    let hint =
        user_sees("DirectoryClosed", &format!("{closed}; $FAIL exec closed/x"));
    holds(&hint, "closed does not let uid ");
}

#[test]
fn not_a_program() {
    let hint = user_sees(
        "NoInterpreterLine",
        "echo echo hi > script; chmod +x script; $FAIL spawn ./script",
    );
    holds(&hint, "`sed -i '1i #!/bin/sh' ./script`");
    // An ELF header, of a machine that none of ours is.
    let hint = user_sees(
        "ForeignArchitecture",
        "{ printf '\\177ELF\\2\\1\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0\\2\\0\\10\\0\\1'
        head -c 43 /dev/zero; } > program
        chmod +x program; $FAIL spawn ./program",
    );
    holds(&hint, "is made for MIPS I Arch");
}

/// Neither what works nor what has no stage gets a sentence.
#[test]
fn nothing_to_say() {
    let error = anyhow::anyhow!(nix::errno::Errno::EPERM);
    assert_eq!(doctor::hint(&error), None);
    let error = error.context(doctor::Stage::DetachOldRoot);
    let seen = doctor::hint(&error);
    assert!(am_root() == seen.is_none(), "{seen:?}");
}
