//! `cargo workshop vm`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::{Pid, Uid};
use suite::process;
use tempfile::TempDir;

/// Far more than any of these takes.
const LONG: Duration = Duration::from_secs(60);

/// Whether there is a kernel to boot. Where the suite must be complete there
/// has to be one.
fn is_there(test: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let there = env::split_paths(&path).any(|dir| {
        ["linux.uml", "linux"].iter().any(|name| dir.join(name).is_file())
    });
    if !there {
        assert!(env::var_os("CI").is_none(), "no user-mode-linux");
        let _ = writeln!(
            std::io::stderr(),
            "{test} is skipped: there is no user-mode-linux"
        );
    }
    there
}

/// A place for a machine, in which nothing may be left.
struct Place {
    work: TempDir,
    room: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = || TempDir::new().expect("a folder");
        let place = Self { work: folder(), room: folder() };
        let open = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(place.room.path(), open).expect("permissions");
        place
    }

    fn vm<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
        command
            .arg("vm")
            .args(args)
            .current_dir(self.work.path())
            .env("TMPDIR", self.room.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Waits until no process and no file is left.
    fn is_left_clean(&self) {
        let room = self.room.path().as_os_str().as_encoded_bytes();
        let in_room = |arg: &OsString| {
            let arg = arg.as_encoded_bytes();
            arg.windows(room.len()).any(|part| part == room)
        };
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let mut left: Vec<_> = process::all()
                .into_iter()
                .filter(|process| process.args().iter().any(in_room))
                .map(process::Process::describe)
                .collect();
            let files = fs::read_dir(self.room.path()).expect("the room");
            left.extend(files.flatten().map(|f| format!("{:?}", f.path())));
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind: {left:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs it with that on stdin.
fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    let _ = writer.join();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_command_and_what_is_around_it() {
    if !is_there("a_command_and_what_is_around_it") {
        return;
    }
    let place = Place::new();
    let odd = OsString::from_vec(b"\xff a\n\"b'".to_vec());
    let odd_folder = place.work.path().join(&odd);
    fs::create_dir(&odd_folder).expect("a folder");
    let script = r#"
        id -u; cat /proc/self/cgroup
        for one in cpu memory pids; do
            grep -ow $one /sys/fs/cgroup/session/cgroup.controllers
        done
        uname -n; findmnt -n -o PROPAGATION /
        echo "$MINE"; pwd; printf '<%s>' "$@"; echo; echo errors >&2
        echo hidden > /tmp/hidden; [ -t 0 ] || echo no terminal
        kill -TERM $$"#;
    let args: [&OsStr; 6] =
        ["sh", "-c", script, "sh", "", "--user"].map(OsStr::new);
    let output = place
        .vm(&args)
        .arg(&odd)
        .current_dir(&odd_folder)
        .env("MINE", &odd)
        .output()
        .expect("it starts");
    let mut expected = b"0\n0::/session/shell\ncpu\nmemory\npids\n\
        vm\nshared\n"
        .to_vec();
    expected.extend(b"\xff a\n\"b'\n");
    expected.extend(odd_folder.into_os_string().into_vec());
    expected.extend(b"\n<><--user><\xff a\n\"b'>\nno terminal\n");
    assert_eq!(text(&output.stdout), text(&expected));
    assert_eq!(text(&output.stderr), "errors\n");
    assert_eq!(output.status.code(), Some(128 + 15));
    assert!(!Path::new("/tmp/hidden").exists());
    place.is_left_clean();
}

#[test]
fn every_byte_gets_through() {
    if !is_there("every_byte_gets_through") {
        return;
    }
    let place = Place::new();
    let bytes: Vec<_> = (0..300_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect();
    let script = "tee copy; exit 7";
    let output = with_input(&mut place.vm(&["sh", "-c", script]), &bytes);
    assert_eq!(text(&output.stderr), "");
    assert!(output.stdout == bytes, "{} bytes", output.stdout.len());
    assert_eq!(output.status.code(), Some(7));
    let copy = fs::read(place.work.path().join("copy")).expect("a copy");
    assert!(copy == bytes, "{} bytes", copy.len());
    place.is_left_clean();
}

/// A reader that has enough ends the command, as in any pipeline; and a
/// command that is not there says so.
#[test]
fn without_a_reader_or_a_command() {
    if !is_there("without_a_reader_or_a_command") {
        return;
    }
    let place = Place::new();
    let mut child = start(&mut place.vm(&["yes"]));
    let mut begin = [0; 4];
    let mut stdout = child.0.stdout.take().expect("a pipe");
    stdout.read_exact(&mut begin).expect("output");
    drop(stdout);
    assert_eq!(&begin, b"y\ny\n");
    assert_eq!(ended(&mut child).code(), Some(128 + 13));
    let output = place.vm(&["no-such-program"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("cannot run \"no-such-program\""));
    place.is_left_clean();
}

#[test]
fn an_ordinary_user_can_divide_a_group() {
    if !is_there("an_ordinary_user_can_divide_a_group") {
        return;
    }
    let place = Place::new();
    let work = place.work.path();
    let uid = match Uid::current() {
        root if root.is_root() => 54_321,
        other => other.as_raw(),
    };
    let made = Command::new(env!("CARGO_BIN_EXE_workshop"))
        .args(["rootfs", "--dir", "fs"])
        .current_dir(work)
        .output()
        .expect("it starts");
    assert!(made.status.success(), "{made:?}");
    if Uid::current().is_root() {
        chown(work, Some(uid), Some(uid)).expect("root may");
    }
    let script = r#"
        id -u; touch made; cd /sys/fs/cgroup/session && mkdir group &&
        echo 5 > group/pids.max && echo 50m > group/memory.max &&
        echo "20000 100000" > group/cpu.max && echo $$ > group/cgroup.procs
        cat /proc/self/cgroup; cat < /dev/stdin
        echo $$ > shell/cgroup.procs; rmdir group; echo "$?"
        cd "$OLDPWD"; umask 22
        [ ! -x "$STEP" ] || "$STEP" run --pids-limit 5 sh -c 'echo $$'"#;
    let step = PathBuf::from(env!("CARGO_BIN_EXE_workshop"));
    let step = step.with_file_name("step07-cgroups");
    // What is in a home of root's is nothing that another user can run.
    let step = match fs::copy(&step, work.join("step")) {
        Ok(_) => work.join("step"),
        Err(_) => PathBuf::from("/nowhere"),
    };
    let mut command = place.vm(&["--user", "sh", "-c", script]);
    let output = with_input(command.env("STEP", &step), b"typed\n");
    let expected = format!("{uid}\n0::/session/group\ntyped\n0\n");
    let two = if step.exists() { "2\n" } else { "" };
    let seen = text(&output.stdout);
    let errors = text(&output.stderr);
    assert_eq!(seen, expected + two, "{errors}");
    let made = work.join("made").metadata().expect("a file");
    assert_eq!(made.uid(), uid);
    place.is_left_clean();
}

#[test]
fn two_machines_end_with_their_launchers() {
    if !is_there("two_machines_end_with_their_launchers") {
        return;
    }
    let place = Place::new();
    let boot = || {
        let mut child = start(&mut place.vm(&["sh", "-c", "echo; sleep 999"]));
        let stdout = child.0.stdout.as_mut().expect("a pipe");
        stdout.read_exact(&mut [0]).expect("a line");
        child
    };
    let [mut first, mut second] = [boot(), boot()];
    send(&first, Signal::SIGTERM);
    assert_eq!(ended(&mut first).code(), Some(128 + 15));
    assert!(second.0.try_wait().expect("ours").is_none());
    send(&second, Signal::SIGKILL);
    ended(&mut second);
    place.is_left_clean();
    // While it boots.
    let mut early = start(&mut place.vm(&["true"]));
    thread::sleep(Duration::from_millis(100));
    send(&early, Signal::SIGINT);
    assert_eq!(ended(&mut early).code(), Some(128 + 2));
    place.is_left_clean();
}

#[test]
fn without_a_kernel_it_says_how_to_get_one() {
    let place = Place::new();
    let output = place
        .vm(&["true"])
        .env("PATH", "/nowhere")
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("User-Mode Linux is not installed"), "{errors}");
    assert!(errors.contains("dpkg -x user-mode-linux_*.deb"), "{errors}");
    // A program that is none.
    let args = ["--kernel", "/bin/echo", "true"];
    let output = place.vm(&args).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("the machine did not boot"), "{errors}");
    let output = place.vm(&["--kernel", "/nowhere"]).output().expect("vm");
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("/nowhere: No such file"), "{errors}");
    place.is_left_clean();
}

#[test]
fn a_terminal() {
    if !is_there("a_terminal") {
        return;
    }
    let place = Place::new();
    let mut screen = Screen::new();
    let before = screen.settings();
    let mut child = screen.start(place.vm::<&str>(&[]).env("TERM", "dumb"));
    screen.shows("# ");
    assert_ne!(screen.settings(), before, "not raw");
    screen.types("stty size; ls -l /proc/self/fd | grep -c ptmx; sleep 100\r");
    screen.shows("\r\n33 101\r\n0\r\n");
    thread::sleep(Duration::from_millis(300));
    screen.types("\x03");
    screen.shows("# ");
    screen.types("echo \"then $?\"; exit 9\r");
    screen.shows("\r\nthen 130\r\n");
    assert_eq!(ended(&mut child).code(), Some(9));
    assert_eq!(screen.settings(), before);
    place.is_left_clean();

    let args = ["sh", "-c", "echo up; sleep 100"];
    let mut child = screen.start(&mut place.vm(&args));
    screen.shows("up\r\n");
    send(&child, Signal::SIGKILL);
    ended(&mut child);
    place.is_left_clean();
    assert_eq!(screen.settings(), before);
}

/// A terminal of 33 lines and 101 columns.
struct Screen {
    ours: File,
    theirs: File,
    shown: Vec<u8>,
}

impl Screen {
    fn new() -> Self {
        let size =
            Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a terminal");
        Self {
            ours: pty.master.into(),
            theirs: pty.slave.into(),
            shown: Vec::new(),
        }
    }

    fn start(&self, command: &mut Command) -> Started {
        let theirs = || self.theirs.try_clone().expect("a copy");
        command.stdin(theirs()).stdout(theirs()).stderr(theirs());
        start(command)
    }

    fn types(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Reads on until it shows that.
    fn shows(&mut self, wanted: &str) {
        let end = Instant::now() + LONG;
        loop {
            let shown = text(&self.shown);
            if let Some(at) = shown.find(wanted) {
                self.shown = shown.into_bytes().split_off(at + wanted.len());
                return;
            }
            assert!(Instant::now() < end, "no {wanted:?} in {shown:?}");
            let mut piece = [0; 4096];
            let length = self.ours.read(&mut piece).expect("a terminal");
            self.shown.extend(&piece[..length]);
        }
    }

    fn settings(&self) -> Termios {
        tcgetattr(&self.theirs).expect("a terminal")
    }
}

/// A launcher that does not outlive a test that fails.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Started {
    Started(command.spawn().expect("it starts"))
}

fn send(child: &Started, signal: Signal) {
    let pid = i32::try_from(child.0.id()).expect("a PID fits");
    kill(Pid::from_raw(pid), signal).expect("ours");
}

/// Waits for its end, but not for ever.
fn ended(child: &mut Started) -> ExitStatus {
    let end = Instant::now() + LONG;
    loop {
        if let Some(status) = child.0.try_wait().expect("ours") {
            return status;
        }
        if Instant::now() > end {
            let _ = child.0.kill();
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// From a folder in which it can do nothing: such a machine is no way out.
#[test]
fn the_doctor_knows_where_it_is() {
    if !is_there("the_doctor_knows_where_it_is") {
        return;
    }
    let place = Place::new();
    let doctor = format!("cd /usr; {} doctor", env!("CARGO_BIN_EXE_workshop"));
    let mut vm = place.vm(&["--user", "sh", "-c", &doctor]);
    // From where its program can be reached.
    let output = vm.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.expect("it starts");
    let said = text(&output.stdout);
    let names_it: Vec<_> =
        said.lines().filter(|line| line.contains("workshop vm")).collect();
    assert!(
        matches!(names_it[..], [line] if line.contains("around us")),
        "{output:?}"
    );
    assert!(said.contains("`cd` to"), "{output:?}");
    place.is_left_clean();
}
