//! `cargo workshop bench`.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A course whose programs are compiled already, on a machine that has some
/// tools and no other runtimes.
struct Course {
    folder: TempDir,
}

const TOOLS: [&str; 8] =
    ["hyperfine", "strace", "cc", "as", "ld", "sh", "busybox", "date"];

impl Course {
    /// None where what is needed is not there.
    fn new() -> Option<Self> {
        let folder = TempDir::new().expect("a folder");
        let course = Self { folder };
        for name in ["bin", "target/release", "workshop", "tmp"] {
            fs::create_dir_all(course.path(name)).expect("a folder");
        }
        for tool in TOOLS {
            let Some(found) = find(tool) else {
                // CI installs them.
                assert!(env::var_os("CI").is_none(), "there is no {tool}");
                return None;
            };
            symlink(found, course.path("bin").join(tool)).expect("a link");
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        symlink(here.join("bench"), course.path("workshop/bench"))
            .expect("a link");
        for entry in fs::read_dir(here.join("..")).expect("the course") {
            let name = entry.expect("an entry").file_name();
            let built = Path::new(env!("CARGO_BIN_EXE_workshop"));
            let built = built.with_file_name(&name);
            if name.to_string_lossy().starts_with("step0") {
                // What `cargo test` has built by now; without, left out.
                let to = course.path("target/release").join(&name);
                let copied = fs::copy(built, &to);
                copied
                    .or_else(|_| fs::copy("/bin/false", &to))
                    .expect("a copy");
            }
        }
        for name in ["cargo", "rustc"] {
            let program = course.path("bin").join(name);
            fs::write(&program, "#!/bin/sh\n").expect("a program");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
                .expect("a program");
        }
        Some(course)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bench(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
        command
            .args(["bench", "--quick"])
            .env("WORKSHOP_COURSE", self.folder.path())
            .env("CARGO", self.path("bin/cargo"))
            .env("RUSTC", self.path("bin/rustc"))
            .env("PATH", self.path("bin"))
            .env("TMPDIR", self.path("tmp"))
            .stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn is_as_before(&self) {
        let left = fs::read_dir(self.path("tmp")).expect("a folder").count();
        assert_eq!(left, 0, "something is left in the folder for it");
        let room = self.folder.path().as_os_str().as_encoded_bytes();
        for process in suite::process::all() {
            let words = process.args();
            let ours = words.iter().any(|word| {
                let word = word.as_encoded_bytes();
                word.windows(room.len()).any(|part| part == room)
            });
            assert!(!ours, "{} is left", process.describe());
        }
    }
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|dir| dir.join(tool)).find(|it| it.exists())
}

#[test]
fn without_hyperfine_it_says_how_to_get_it() {
    let nothing = TempDir::new().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_workshop"))
        .arg("bench")
        .env("PATH", nothing.path())
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("apt install hyperfine"), "{errors}");
}

/// In CI only: it takes a minute.
#[test]
fn who_is_not_there_is_left_out_by_name_and_the_rest_is_measured() {
    if env::var_os("CI").is_none() {
        return;
    }
    let Some(course) = Course::new() else { return };
    let output = course.bench().output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let out = String::from_utf8_lossy(&output.stdout);
    let rows = |name: &str| out.lines().filter(|l| l.starts_with(name)).count();
    assert!(rows("the floor, in C ") >= 2, "{out}");
    for step in ["step01 ", "step05 ", "step06 "] {
        assert!(rows(step) >= 2, "{step} is not measured: {out}");
    }
    let line = out.lines().find(|line| line.starts_with("left out: "));
    let line = line.expect("a line that says who is left out");
    for name in ["unshare", "bubblewrap", "crun"] {
        let why = format!("{name} (not installed)");
        assert!(line.contains(&why), "{line}");
    }
    course.is_as_before();
}

#[test]
fn interrupted_it_leaves_nothing() {
    if env::var_os("CI").is_none() {
        return;
    }
    let Some(course) = Course::new() else { return };
    let mut child =
        course.bench().stderr(Stdio::piped()).spawn().expect("it starts");
    let errors = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut lines = errors.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("measuring start-up")));
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a PID"));
    kill(pid, Signal::SIGINT).expect("a signal");
    let status = child.wait().expect("an end");
    assert_eq!(status.code(), Some(130));
    course.is_as_before();
}
