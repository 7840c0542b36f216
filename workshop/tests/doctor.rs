//! `cargo workshop doctor`: in surroundings of many kinds, what it says of
//! every step is compared with what that step really does there.

mod programs;

use std::env;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::thread;

use doctor::capabilities::{Capability, effective};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::programs::STEPS;

/// An ordinary user, who needs no entry in /etc/passwd.
const USER: &str = "setpriv --reuid=54321 --regid=54321 --clear-groups";

/// Asks the doctor, then tries each step, as `$1` has them, and prints what
/// came of it. What the doctor has left behind would come between.
const LOOK: &str = r#"
state() { ls -A; cat /proc/self/mountinfo; uname -n; } 2> /dev/null
before=$(state)
"$1/workshop" doctor --json
echo "doctor $?"
[ "$before" = "$(state)" ] || { echo "not the same: $before"; state; }
for step in step01-exec step02-uts step03-pid step04-chroot step05-proc \
    step06-pivot-root step07-cgroups
do
    errors=$("$1/$step" run sh -c : 2>&1)
    echo "$step $?"
    case $errors in
        *hint:*) echo "hint:${errors##*hint:}" | sed "s|$PWD/||g" ;;
    esac
done
"#;

/// Where the programs are, the steps built for this.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(programs::build);

/// Whether we can bring about more than an ordinary user can.
fn am_root() -> bool {
    effective(Capability::SysAdmin) == Some(true)
}

/// What came of it.
#[derive(Debug)]
struct Seen {
    said: Value,
    /// Of each step, whether it works, and its hint.
    steps: Vec<(bool, Option<String>)>,
}

impl Seen {
    /// What is in the way of this step, as the doctor calls it.
    fn needs(&self, step: usize) -> &str {
        self.said["steps"][format!("step{step:02}")]["needs"]
            .as_str()
            .unwrap_or_default()
    }

    /// Which of the first six steps work, as a digit each. The seventh is
    /// another matter on every machine.
    fn work(&self) -> String {
        let six = self.steps.iter().take(6).zip(1..);
        six.filter(|((works, _), _)| *works)
            .map(|(_, number)| number.to_string())
            .collect()
    }
}

/// Root, in surroundings that this shell script makes before it calls
/// `$LOOK`, in an empty folder and a mount namespace of its own.
#[track_caller]
fn root(script: &str) -> Option<Seen> {
    if am_root() {
        return Some(look(script, None));
    }
    let test = thread::current();
    let test = test.name().unwrap_or_default();
    let _ = writeln!(io::stderr(), "skipped: {test}: needs root");
    None
}

/// An ordinary user in such surroundings.
#[track_caller]
fn user(script: &str) -> Seen {
    user_filtered(script, None)
}

#[track_caller]
fn user_filtered(script: &str, filter: Option<&BpfProgram>) -> Seen {
    match am_root() {
        true => look(&format!("exec {USER} sh -ec '{script}'"), filter),
        false => look(script, filter),
    }
}

/// Looks, and compares.
#[track_caller]
fn look(script: &str, filter: Option<&BpfProgram>) -> Seen {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    for (name, mode) in [("", 0o755), ("programs", 0o755), ("work", 0o1777)] {
        let folder = path.join(name);
        let _ = fs::create_dir(&folder);
        fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
    }
    fs::write(path.join("look"), LOOK).unwrap();
    // What a thread takes for itself, those that it starts inherit.
    let output = thread::scope(|scope| {
        let start = || {
            lend_programs(&path.join("programs"));
            if let Some(filter) = filter {
                apply_filter(filter).unwrap();
            }
            let (look, folder) = (path.join("look"), path.display());
            Command::new("sh")
                .args(["-ec", script])
                .current_dir(path.join("work"))
                .env("LOOK", format!("sh {} {folder}/programs", look.display()))
                .env("TOP", path)
                .output()
                .unwrap()
        };
        scope.spawn(start).join().unwrap()
    });
    let seen = read(&output);
    compare(&seen);
    seen
}

/// Where everybody may read them, in a mount namespace of our own.
fn lend_programs(place: &Path) {
    const NONE: Option<&str> = None;
    if !am_root() {
        fs::remove_dir(place).unwrap();
        return symlink(&*PROGRAMS, place).unwrap();
    }
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(NONE, "/", NONE, private, NONE).unwrap();
    let programs = Some(&*PROGRAMS);
    mount(programs, place, NONE, MsFlags::MS_BIND, NONE).unwrap();
}

#[track_caller]
fn read(output: &Output) -> Seen {
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines().peekable();
    let said = lines.next().and_then(|line| serde_json::from_str(line).ok());
    let said: Value = said.unwrap_or_else(|| panic!("{output:?}"));
    let mut status = |name: &str| {
        let line = lines.next().unwrap_or_default();
        let number =
            line.strip_prefix(name).and_then(|it| it.strip_prefix(' '));
        let number = number.unwrap_or_else(|| panic!("{name}: {text}"));
        let hint = lines.next_if(|line| line.starts_with("hint: "));
        let hint = hint.and_then(|line| line.strip_prefix("hint: "));
        (number == "0", hint.map(str::to_owned))
    };
    let (good, _) = status("doctor");
    let steps: Vec<_> = STEPS.into_iter().map(status).collect();
    let all = steps.iter().all(|(works, _)| *works);
    assert_eq!(good, all, "the doctor's status: {text}");
    Seen { said, steps }
}

/// The truth is what the steps do.
#[track_caller]
fn compare(seen: &Seen) {
    for ((works, hint), number) in seen.steps.iter().zip(1..) {
        let verdict = &seen.said["steps"][format!("step{number:02}")];
        assert_eq!(verdict["ok"], *works, "step {number}: {seen:?}");
        // Step 7 makes its group first, and the doctor tries that last.
        let first = number < 7 || seen.steps[5].0;
        if let (Some(hint), true) = (hint, first) {
            assert_eq!(verdict["hint"], **hint, "step {number}: {seen:?}");
        }
    }
    let checks = seen.said["checks"].as_object().unwrap();
    for (name, check) in checks.iter().filter(|(_, it)| it["ok"] == false) {
        let hint = check["hint"].as_str().unwrap_or_default();
        assert!(hint.contains(": "), "no way out for {name}: {check}");
    }
}

#[test]
fn as_it_is() {
    let plain = user("$LOOK");
    assert_eq!(plain.said["host"]["container"], Value::Null);
    assert_eq!(user("trap \"\" CHLD HUP; exec $LOOK").work(), plain.work());
    root("$LOOK");
    let Some(seen) = root("mount --make-rshared /; $LOOK") else { return };
    assert_eq!(seen.said["host"]["root"], "shared");
    assert_eq!(seen.work(), "123456");
}

#[test]
fn limits_on_namespaces() {
    // Who makes a user namespace may lower its limits, and is root in it.
    let off = |kind: &str, rest: &str| {
        format!(
            "unshare -Ur sh -ec \"
            echo 0 > /proc/sys/user/max_{kind}_namespaces; {rest} \\$LOOK\""
        )
    };
    let user_off = |kind, rest| user(&off(kind, rest));
    assert_eq!(user_off("user", "").work(), "123456");
    let seen = user_off("user", "setpriv --bounding-set=-all --inh-caps=-all");
    assert_eq!((seen.needs(2), &*seen.work()), ("user", "1"));
    let seen = user_off("uts", "");
    assert_eq!((seen.needs(2), &*seen.work()), ("uts", "1"));
    let seen = user_off("pid", "");
    assert_eq!((seen.needs(3), &*seen.work()), ("pid", "12"));
    let seen = user_off("mnt", "");
    assert_eq!((seen.needs(5), &*seen.work()), ("mount", "1234"));
    // Root there is root to the control groups' files, too.
    let Some(seen) = root(&off("cgroup", "")) else { return };
    assert_eq!((seen.needs(7), &*seen.work()), ("cgroup", "123456"));
}

#[test]
fn capabilities() {
    let without = |names: &str| {
        root(&format!("setpriv --bounding-set={names} --inh-caps=-all $LOOK"))
    };
    // A user namespace instead.
    let Some(seen) = without("-sys_admin") else { return };
    assert_eq!(seen.said["host"]["cap_sys_admin"], false);
    assert_eq!(seen.work(), "123456");
    let seen = without("-sys_admin,-setfcap").unwrap();
    assert_eq!((seen.needs(2), &*seen.work()), ("maps", "1"));
    let seen = without("-sys_chroot").unwrap();
    assert_eq!((seen.needs(4), &*seen.work()), ("chroot", "1236"));
}

/// Refuses a system call, or when `user` is asked for only new user
/// namespaces, as Docker and systemd do.
fn filter(call: libc::c_long, user: bool) -> BpfProgram {
    let new_user = CloneFlags::CLONE_NEWUSER.bits() as u64;
    let flag = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(new_user),
        new_user,
    );
    let rule = SeccompRule::new(vec![flag.unwrap()]).unwrap();
    let rules = if user { vec![rule] } else { Vec::new() };
    let filter = SeccompFilter::new(
        [(call, rules)].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        env::consts::ARCH.try_into().unwrap(),
    );
    filter.unwrap().try_into().unwrap()
}

#[test]
fn filters() {
    let user = |call, user| user_filtered("$LOOK", Some(&filter(call, user)));
    let seen = user(libc::SYS_unshare, true);
    assert_eq!((seen.needs(2), &*seen.work()), ("user", "1"));
    let seen = user(libc::SYS_chroot, false);
    assert_eq!((seen.needs(5), &*seen.work()), ("chroot", "1236"));
    let seen = user(libc::SYS_mount, false);
    assert_eq!((seen.needs(6), &*seen.work()), ("mount", "1234"));
    let seen = user(libc::SYS_pivot_root, false);
    assert_eq!((seen.needs(6), &*seen.work()), ("pivot_root", "12345"));
    let seen = user(libc::SYS_umount2, false);
    assert_eq!((seen.needs(6), &*seen.work()), ("pivot_root", "12345"));
}

#[test]
fn proc_elsewhere() {
    let Some(seen) = root("umount -l /proc; $LOOK") else { return };
    assert_eq!((seen.needs(1), &*seen.work()), ("start", ""));
    let mask = "mount --bind /dev/null /proc/cmdline";
    let seen = root(&format!("{mask}; {USER} $LOOK")).unwrap();
    assert_eq!((seen.needs(5), &*seen.work()), ("proc", "1234"));
    // A switch is a fact. What follows from it is tried.
    let switch = "apparmor_restrict_unprivileged_userns";
    let seen = root(&format!(
        "mkdir kernel; echo 1 > kernel/{switch}
        mount --bind kernel /proc/sys/kernel; $LOOK"
    ))
    .unwrap();
    let switches = &seen.said["checks"]["switches"]["why"];
    assert_eq!(*switches, *format!("kernel.{switch} is 1"));
    assert_eq!(seen.work(), "123456");
    let read_only = "mount -o remount,bind,ro /proc";
    let seen = root(&format!("{read_only}; {USER} $LOOK")).unwrap();
    assert_eq!((seen.needs(2), &*seen.work()), ("maps", "1"));
}

#[test]
fn roots() {
    let closed = "chmod 755 .";
    if let Some(seen) = root(&format!("{closed}; {USER} $LOOK")) {
        assert_eq!((seen.needs(4), &*seen.work()), ("rootfs", "123"));
        let hint = seen.said["checks"]["rootfs"]["hint"].as_str();
        assert!(hint.is_some_and(|it| it.contains("`cd` to")), "{hint:?}");
    }
    let seen = user("touch fs; $LOOK");
    assert_eq!((seen.needs(4), &*seen.work()), ("rootfs", "123"));
    let seen = user("mkdir fs; $LOOK");
    assert_eq!((seen.needs(4), &*seen.work()), ("chroot", "123"));
    let seen = user(
        "unshare -Urm sh -ec \"
        mkdir m; mount -t tmpfs -o noexec m m; cd m; \\$LOOK\"",
    );
    assert_eq!((seen.needs(4), &*seen.work()), ("chroot", "123"));
    let seen = user(
        "$TOP/programs/step04-chroot run true 2> /dev/null
        rmdir fs/proc; touch fs/proc; $LOOK",
    );
    assert_eq!((seen.needs(5), &*seen.work()), ("proc", "1234"));
}

#[test]
fn control_groups() {
    let hidden = root("mount -t tmpfs none /sys/fs/cgroup; $LOOK");
    let Some(seen) = hidden else { return };
    assert_eq!((seen.needs(7), &*seen.work()), ("limits", "123456"));
    let read_only = "grep -E ' - cgroup2? ' /proc/self/mountinfo |
        cut -d ' ' -f 5 |
        while read -r point; do mount -o remount,bind,ro $point; done";
    let seen = root(&format!("{read_only}; $LOOK")).unwrap();
    assert_eq!((seen.needs(7), &*seen.work()), ("limits", "123456"));
}

/// Fills `inside` with a root that has the programs, too.
const INSIDE: &str = "mkdir inside; cd inside
    $TOP/programs/step04-chroot run true 2> /dev/null
    for library in $(ldd $TOP/programs/workshop | grep -o '/[^ ]*'); do
        mkdir -p fs$(dirname $library); cp -n $library fs$library
    done
    mkdir fs/programs fs/work
    chmod 777 fs/work
    cp $TOP/look fs
    mount --bind $TOP/programs fs/programs";
const LOOK_INSIDE: &str = "'cd /work; exec sh /look /programs'";

/// What takes its time is for CI, so that nobody in a room has to wait.
fn is_in_a_room() -> bool {
    let room = env::var_os("CI").is_none();
    if room {
        let _ = writeln!(io::stderr(), "skipped: roots of our own are for CI");
    }
    room
}

#[test]
fn in_a_chroot() {
    if is_in_a_room() {
        return;
    }
    let chroot = format!(
        "{INSIDE}; mount --bind /proc fs/proc
        chroot SOMEBODY fs sh -c {LOOK_INSIDE}"
    );
    let Some(seen) = root(&chroot.replace("SOMEBODY", "")) else { return };
    assert_eq!((seen.needs(5), &*seen.work()), ("mount", "1234"));
    assert_ne!(seen.said["host"]["chroot"], Value::Null);
    let user = chroot.replace("SOMEBODY", "--userspec=54321:54321");
    let seen = root(&user).unwrap();
    assert_eq!((seen.needs(2), &*seen.work()), ("user", "1"));
}

#[test]
fn in_our_own_container() {
    if is_in_a_room() {
        return;
    }
    let container = format!(
        "{INSIDE}; $TOP/programs/step07-cgroups --pids-limit 40 --memory 200m \
        run sh -c {LOOK_INSIDE}"
    );
    let Some(seen) = root(&container) else { return };
    assert_eq!((seen.needs(7), &*seen.work()), ("limits", "123456"));
    let container = format!(
        "{INSIDE}; {USER} $TOP/programs/step06-pivot-root \
        run sh -c {LOOK_INSIDE}"
    );
    let seen = root(&container).unwrap();
    assert_eq!((seen.needs(7), &*seen.work()), ("limits", "123456"));
    assert_eq!(seen.said["host"]["initial_pid_namespace"], false);
}

/// A group that a doctor has made and its process did not remove.
#[test]
fn no_group_is_left() {
    root("$LOOK");
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-name", "doctor-*"])
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&found.stdout);
    for group in found.lines() {
        let pid =
            group.rsplit('/').next().unwrap().trim_start_matches("doctor-");
        let pid = pid.trim_end_matches("-leaf");
        assert!(Path::new("/proc").join(pid).exists(), "{group} is left");
    }
}

#[test]
fn for_the_reader() {
    let folder = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_workshop"))
        .arg("doctor")
        .current_dir(&folder)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\x1b') && output.stderr.is_empty(), "{text}");
    for group in ["machine", "namespaces", "root", "control groups", "tools"] {
        assert!(text.lines().any(|line| line == group), "{group}: {text}");
    }
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("Next: "), "{last}");
    let (_, steps) = text.split_once("\nsteps\n").unwrap();
    assert_eq!(output.status.success(), !steps.contains('✗'), "{text}");
}
