//! `cargo workshop check`: programs good and bad, our own and others'.

use std::fs::{self, Permissions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

/// A user that owns nothing, not even what the suite gives to its own.
const SOMEBODY: u32 = 54322;

/// A folder that everybody may read, with the workshop and a program in it.
struct Folder {
    dir: TempDir,
    uid: Option<u32>,
}

impl Folder {
    fn new() -> Self {
        let dir = TempDir::with_prefix("check-test-").expect("a folder");
        let open = Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), open).expect("a mode");
        fs::create_dir(dir.path().join("tmp")).expect("a folder");
        let workshop = dir.path().join("workshop");
        fs::copy(env!("CARGO_BIN_EXE_workshop"), workshop).expect("a copy");
        Self { dir, uid: None }
    }

    /// Whose checks an ordinary user runs, if that can be arranged.
    fn of_a_user() -> Self {
        let folder = Self::new();
        let tmp = folder.tmp();
        let uid = Uid::effective().is_root().then_some(SOMEBODY);
        chown(tmp, uid, uid).expect("a gift");
        Self { uid, ..folder }
    }

    fn with_script(self, script: &str) -> Self {
        let path = self.dir.path().join("program");
        fs::write(&path, script).expect("a script");
        let may_run = Permissions::from_mode(0o755);
        fs::set_permissions(path, may_run).expect("a mode");
        self
    }

    fn with_step(self, package: &str) -> Self {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--package", package])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.expect("cargo").success(), "{package} is not built");
        let programs = Path::new(env!("CARGO_BIN_EXE_workshop"));
        let program = programs.with_file_name(package);
        let copy = self.dir.path().join("program");
        fs::copy(program, copy).expect("a copy");
        self
    }

    /// For what the check makes for itself.
    fn tmp(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.dir.path().join("workshop"));
        command
            .arg("check")
            .args(args)
            .args(["--bin", "./program"])
            .current_dir(self.dir.path())
            .env("TMPDIR", self.tmp())
            .stdin(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Checks it, and sees that nothing of the check stays.
    fn check(&self, args: &[&str]) -> Checked {
        let output = self.command(args).output().expect("it starts");
        let left = fs::read_dir(self.tmp()).expect("a folder").count();
        assert_eq!(left, 0, "files are left behind");
        Checked(output)
    }
}

/// Who runs a check: we ourselves, and where nobody has to wait for it an
/// ordinary user as well.
fn folders() -> Vec<Folder> {
    let mut folders = vec![Folder::new()];
    if std::env::var_os("CI").is_some() {
        folders.push(Folder::of_a_user());
    } else {
        let _ = writeln!(io::stderr(), "skipped: another user is for CI");
    }
    folders
}

/// What a check said.
#[derive(Debug)]
struct Checked(Output);

impl Checked {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    /// The lines of those properties.
    fn lines(&self, sign: char) -> Vec<String> {
        let text = self.text();
        let lines = text.lines().filter(|line| line.starts_with(sign));
        lines.map(|line| line.chars().skip(9).collect::<String>()).collect()
    }

    #[track_caller]
    fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.0.status.code(), Some(code), "{}", self.text());
        self
    }

    #[track_caller]
    fn expect(&self, text: &str) -> &Self {
        assert!(self.text().contains(text), "no {text:?} in {}", self.text());
        self
    }

    #[track_caller]
    fn expect_each(&self, sign: char, names: &[&str]) -> &Self {
        let lines = self.lines(sign);
        for name in names {
            assert!(
                lines.iter().any(|line| line == name),
                "{name:?} is not {sign} in {}",
                self.text()
            );
        }
        self
    }
}

/// Whether an ordinary user can have a container here; said, where not.
fn has_user_namespaces(folder: &Folder) -> bool {
    let mut try_it = Command::new("unshare");
    try_it.args(["--user", "--map-root-user", "true"]);
    if let Some(uid) = folder.uid {
        try_it.uid(uid).gid(uid);
    }
    let output = try_it.output().expect("unshare(1)");
    if !output.status.success() {
        assert!(std::env::var_os("CI").is_none(), "{output:?}");
        let _ = writeln!(io::stderr(), "skipped: no user namespaces here");
    }
    output.status.success()
}

/// Whether a process with this argument runs anywhere.
fn is_running(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let mut lines =
        processes.filter_map(|it| fs::read(it.path().join("cmdline")).ok());
    lines.any(|line| {
        line.split(|byte| *byte == 0).any(|arg| arg == argument.as_bytes())
    })
}

const STEP05: &str = "\
./program as step05, run by WHOM

✓ holds  exit status
✓ holds  arguments
✓ holds  streams
✓ holds  signals at the start
✓ holds  own host name
✓ holds  own PIDs
✓ holds  ends with its launcher
✓ holds  ends with its command
✓ holds  TERM arrives
✓ holds  own files
✓ holds  own environment
✓ holds  no new privileges
✓ holds  own /proc
✓ holds  own mount table
· later  no escape by chroot, in step06
· later  no leaked directory, in step06
· later  own /dev, in step06
· later  at most ten processes, in step07
· later  at most 50 MB, in step07
· later  own cgroup tree, in step07
· later  own System V IPC, beyond the seven steps
· later  own network, beyond the seven steps

step05: 14 of 22 hold, all that step05 is to isolate
next: `cargo workshop check 06 --bin ./program`
";

#[test]
fn our_own_step_holds_what_it_is_to_hold() {
    for folder in folders() {
        let is_root = folder.uid.is_none() && Uid::effective().is_root();
        if !is_root && !has_user_namespaces(&folder) {
            continue;
        }
        let folder = folder.with_step("step05-proc");
        let whom = if is_root { "root" } else { "an ordinary user" };
        let checked = folder.check(&["05"]);
        checked.expect_code(0);
        assert_eq!(checked.text(), STEP05.replace("WHOM", whom));
    }
}

#[test]
fn what_a_step_leaks_is_explained() {
    let folder = Folder::of_a_user();
    if !has_user_namespaces(&folder) {
        return;
    }
    let checked = folder.with_step("step05-proc").check(&["06"]);
    checked
        .expect_code(1)
        .expect(
            "\
✗ leaks  no escape by chroot
         seen: a file of the host was read (through chroot, `..`, chroot)
         expected: Root in the container cannot climb out with a second chroot.
         book: 06-pivot-root.html#the-swap
",
        )
        .expect("step06: 14 of 22 hold, 3 should and do not\n");
    let leaks = ["no escape by chroot", "no leaked directory", "own /dev"];
    assert_eq!(checked.lines('✗'), leaks);
}

/// Another language, a banner on stdout, and no option of ours.
#[test]
fn a_shell_script_is_judged_by_what_it_does() {
    let script = "#!/bin/sh\n\
        PATH=$PATH:/usr/sbin:/sbin; shift; echo \"starting $*\"\n\
        [ $(id -u) = 0 ] || root='--user --map-root-user'\n\
        exec unshare $root --uts --pid --mount --fork --kill-child sh -c \
        'mount -t proc proc fs/proc; exec chroot fs \"$@\"' sh \"$@\"\n";
    for folder in folders() {
        let is_root = folder.uid.is_none() && Uid::effective().is_root();
        if !is_root && !has_user_namespaces(&folder) {
            continue;
        }
        let checked = folder.with_script(script).check(&[]);
        let leaks = [
            "own environment",
            "no new privileges",
            "no escape by chroot",
            "no leaked directory",
            "own /dev",
            "at most ten processes",
            "at most 50 MB",
            "own cgroup tree",
        ];
        let holds = [
            "arguments",
            "streams",
            "own host name",
            "own PIDs",
            "ends with its launcher",
            "ends with its command",
            "own files",
            "own /proc",
            "own mount table",
        ];
        checked.expect_code(1).expect_each('✗', &leaks);
        checked.expect_each('✓', &holds);
    }
}

#[test]
fn who_only_execs_isolates_nothing() {
    let script = "#!/bin/sh\nshift\nexec \"$@\"\n";
    let checked = Folder::new().with_script(script).check(&["05"]);
    let leaks = [
        "own host name",
        "own PIDs",
        "ends with its command",
        "own files",
        "own environment",
        "no new privileges",
        "own /proc",
        "own mount table",
    ];
    let holds = ["exit status", "arguments", "streams", "TERM arrives"];
    checked.expect_code(1).expect_each('✗', &leaks).expect_each('✓', &holds);
}

#[test]
fn who_hangs_is_stopped() {
    let folder = Folder::new();
    let folder = folder.with_script("#!/bin/sh\nsleep 98701\n");
    let start = Instant::now();
    let checked = folder.check(&["02"]);
    assert!(start.elapsed() < Duration::from_secs(10));
    checked
        .expect_code(1)
        .expect("✗ fails  it runs no command\n         seen: still running")
        .expect("✗ unseen own host name\n")
        .expect("step02: 0 of 22 hold, 6 should and do not\n");
    assert!(!is_running("98701"));
}

#[test]
fn who_floods_is_stopped() {
    let folder = Folder::new();
    let folder = folder.with_script("#!/bin/sh\nyes 'without end 98702'\n");
    let checked = folder.check(&["02"]);
    checked.expect_code(1).expect("more than 16 MB of output");
    assert!(!is_running("without end 98702"));
}

#[test]
fn survivors_do_not_survive_the_check() {
    let script = "#!/bin/sh\nshift\n\
        (setsid sh -c 'trap \"\" TERM; sleep 98703' >/dev/null 2>&1 &)\n\
        \"$@\"\n";
    let checked = Folder::new().with_script(script).check(&["03"]);
    checked
        .expect_code(1)
        .expect_each('✗', &["ends with its launcher", "ends with its command"])
        .expect_each('✓', &["exit status"])
        .expect("left on the host, and cleaned up after:\n")
        .expect("  a process: sleep 98703\n");
    assert!(!is_running("98703"));
}

/// Where root may make any: the check shows it a tree of its own.
#[test]
fn control_groups_are_removed() {
    let tree = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
    let tree = tree.iter().find(|dir| {
        let procs = Path::new(dir).join("cgroup.procs");
        Uid::effective().is_root()
            && fs::OpenOptions::new().append(true).open(procs).is_ok()
    });
    let Some(tree) = tree else {
        let _ = writeln!(io::stderr(), "skipped: no cgroups for us here");
        return;
    };
    let script = format!(
        "#!/bin/sh\nshift\nmkdir -p {tree}/check-test && \
         echo $$ > {tree}/check-test/cgroup.procs && exec \"$@\"\n"
    );
    let checked = Folder::new().with_script(&script).check(&["01"]);
    checked.expect(&format!("  a cgroup: {tree}/check-test\n"));
    checked.expect_each('✓', &["exit status", "arguments"]);
    assert!(!Path::new(tree).join("check-test").exists());
}

/// What is wrong is the command line, or the file.
#[test]
fn what_is_no_program_is_not_checked() {
    let folder = Folder::new();
    let fails = |with: &str| {
        let checked = folder.check(&[]);
        checked.expect_code(1);
        let errors = String::from_utf8_lossy(&checked.0.stderr);
        assert!(errors.contains(with), "{errors}");
        assert_eq!(checked.text(), "");
    };
    fails("cannot check ./program: No such file or directory (ENOENT)");
    let program = folder.dir.path().join("program");
    fs::write(&program, "").expect("a file");
    fails("./program may not be executed: `chmod +x ./program` lets it");
    fs::remove_file(&program).expect("gone");
    fs::create_dir(&program).expect("a folder");
    fails("./program is no program");
}

#[test]
fn a_change_is_watched_and_ctrl_c_leaves_nothing() {
    let folder = Folder::new();
    let good = "#!/bin/sh\nshift\n\"$@\"\n";
    let folder = folder.with_script(&good.replace("shift", "exit 3"));
    let mut child = folder
        .command(&["01", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let stdout = child.stdout.take().expect("a pipe");
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let mut until = |end: &str| -> Vec<String> {
        let found = lines.by_ref().take_while(|line| !line.starts_with(end));
        found.collect()
    };
    let first = until("watching ./program; Ctrl-C ends");
    assert!(first.iter().any(|line| line.contains("0 of 22")), "{first:?}");
    let folder = folder.with_script(good);
    let second = until("watching ./program; Ctrl-C ends");
    assert!(
        second.iter().any(|line| line == "✓ holds  arguments"),
        "{second:?}"
    );
    // In the midst of a check.
    let folder = folder.with_script("#!/bin/sh\nsleep 98704\n");
    until("./program as step01");
    let pid = i32::try_from(child.id()).expect("a PID");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("a signal");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert!(!is_running("98704"));
    let left = fs::read_dir(folder.tmp()).expect("a folder").count();
    assert_eq!(left, 0, "files are left behind");
}
