//! `cargo workshop start`, `hint` and `catch-up`.

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A course of its own, with the steps of this one.
struct Course(TempDir);

impl Course {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let here = here.canonicalize().expect("the course");
        for entry in fs::read_dir(&here).expect("a folder").flatten() {
            let name = entry.file_name();
            let is_ours = ["mine", ".git"].iter().any(|n| name == *n);
            if !is_ours {
                symlink(entry.path(), folder.path().join(name))
                    .expect("a link");
            }
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn workshop(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_workshop"))
            .args(args)
            .env("WORKSHOP_COURSE", self.0.path())
            .output()
            .expect("it starts")
    }

    #[track_caller]
    fn works(&self, args: &[&str]) -> String {
        let output = self.workshop(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    #[track_caller]
    fn fails(&self, args: &[&str], with: &str) {
        let output = self.workshop(args);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(with), "{with:?} is not in {errors}");
    }

    /// A step's source as `mine` gets it.
    fn source(&self, step: &str) -> String {
        let text = fs::read_to_string(self.path(step).join("src/main.rs"));
        let text = text.expect("a source");
        let lines = text.lines().filter(|line| !line.contains("// ANCHOR"));
        lines.map(|line| format!("{line}\n")).collect()
    }

    fn mine(&self) -> String {
        fs::read_to_string(self.path("mine/src/main.rs")).expect("a source")
    }
}

#[test]
fn nothing_works_before_start() {
    let course = Course::new();
    for args in [&["hint"][..], &["catch-up", "02"], &["diff", "mine", "02"]] {
        course.fails(args, "`cargo workshop start` makes it");
    }
}

#[test]
fn alone_it_lists_its_commands_and_says_what_is_next() {
    let course = Course::new();
    let said = course.works(&[]);
    for command in ["doctor", "rootfs", "start", "check", "hint", "catch-up"] {
        assert!(said.contains(&format!("\n  {command} ")), "{said}");
    }
    assert!(said.contains("\nNext: `cargo workshop doctor`"), "{said}");
    course.works(&["start"]);
    assert!(course.works(&[]).contains("\nNext: step 2: `cargo workshop"));
}

/// Where cargo finds the course's programs no more by itself.
#[test]
fn the_workshop_can_be_called_from_mine() {
    let course = Course::new();
    course.works(&["start"]);
    let output = Command::new(env!("CARGO"))
        .arg("--list")
        .current_dir(course.path("mine/src"))
        .output()
        .expect("cargo");
    let list = String::from_utf8_lossy(&output.stdout);
    let alias = list.lines().find(|l| l.trim().starts_with("workshop "));
    let manifest = course.0.path().canonicalize().expect("a folder");
    let manifest = manifest.join("Cargo.toml");
    let wanted = format!("--manifest-path {} -p", manifest.display());
    assert!(alias.is_some_and(|it| it.contains(&wanted)), "{output:?}");
}

/// Compiled with what is there already, and without a network. It takes its
/// time, so that nobody in a room has to wait for it.
#[test]
fn start_gives_a_crate_that_runs() {
    if env::var_os("CI").is_none() {
        let _ = writeln!(io::stderr(), "skipped: compiling is for CI");
        return;
    }
    let course = Course::new();
    let said = course.works(&["start"]);
    assert!(said.contains("Step 2: a host name of its own"), "{said}");
    assert_eq!(course.mine(), course.source("step01-exec"));
    let output = Command::new(env!("CARGO"))
        .args(["run", "-q", "--offline", "--", "run", "echo", "hello"])
        .current_dir(course.path("mine"))
        .output()
        .expect("cargo");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.stdout, b"hello\n", "{errors}");
}

/// A second time it would be the participant's work that goes.
#[test]
fn start_does_not_start_over() {
    let course = Course::new();
    course.works(&["start"]);
    fs::write(course.path("mine/src/main.rs"), "mine").expect("written");
    course.fails(&["start"], "mine/ is there already");
    assert_eq!(course.mine(), "mine");
}

#[test]
fn hints_come_one_by_one_and_end_with_the_answer() {
    let course = Course::new();
    course.works(&["start"]);
    let mut seen = Vec::new();
    loop {
        let hint = course.works(&["hint"]);
        assert!(!seen.contains(&hint), "twice: {hint}");
        let is_answer = hint.starts_with("The answer");
        seen.push(hint);
        if is_answer {
            break;
        }
    }
    assert!(seen.len() > 3, "{seen:?}");
    let answer = &seen[seen.len() - 1];
    assert!(answer.contains("+fn enter_namespaces() -> Result<()> {"));
    // From there on it is the answer, which changes with the source.
    assert_eq!(&course.works(&["hint"]), answer);
    assert!(course.works(&["hint", "--again"]).starts_with("Step 2: "));
    assert!(course.works(&["hint", "05"]).starts_with("Step 5: "));
    assert!(course.works(&["hint", "05"]).starts_with("1. "));
    // The task is still the same.
    assert!(course.works(&["hint"]).starts_with("1. "));
}

#[test]
fn every_step_has_a_task_and_hints() {
    let course = Course::new();
    course.works(&["start"]);
    for step in 2..=7 {
        let step = format!("{step:02}");
        let task = course.works(&["hint", &step, "--again"]);
        assert!(task.starts_with(&format!("Step {}: ", &step[1..])), "{task}");
        assert!(course.works(&["hint", &step]).starts_with("1. "));
        assert!(course.works(&["hint", &step]).starts_with("2. "));
    }
}

#[test]
fn catch_up_keeps_what_was_there() {
    let course = Course::new();
    course.works(&["start"]);
    fs::write(course.path("mine/src/main.rs"), "first try").expect("written");
    let said = course.works(&["catch-up", "03"]);
    assert!(said.contains("mine/ is at step 3 now"), "{said}");
    assert!(said.contains("what you had is in mine/kept/1"), "{said}");
    assert!(said.contains("Step 4: "), "{said}");
    assert_eq!(course.mine(), course.source("step03-pid"));
    let kept = |number: u8| {
        let kept = course.path(&format!("mine/kept/{number}/main.rs"));
        fs::read_to_string(kept).expect("kept")
    };
    assert_eq!(kept(1), "first try");
    assert!(course.works(&["hint"]).starts_with("1. "));
    course.works(&["catch-up", "7"]);
    assert_eq!(kept(2), course.source("step03-pid"));
    assert!(course.path("mine/src/cgroup.rs").exists());
    assert_eq!(
        course.works(&["diff", "mine", "07"]),
        "mine and step07-cgroups are the same\n"
    );
    // Nothing of a later step stays behind.
    course.works(&["catch-up", "06"]);
    assert!(!course.path("mine/src/cgroup.rs").exists());
}

#[test]
fn a_damaged_crate_has_a_way_out() {
    let course = Course::new();
    course.works(&["start"]);
    let step = course.path("mine/.step");
    for damage in [Some("rubbish\n"), None] {
        match damage {
            Some(text) => fs::write(&step, text).expect("a file"),
            None => fs::remove_file(&step).expect("a file"),
        }
        course.fails(&["hint"], "write 02 into it");
        course.fails(&[], "write 02 into it");
    }
    fs::remove_dir_all(course.path("mine/src")).expect("a folder");
    let said = course.works(&["catch-up", "02"]);
    assert!(!said.contains("what you had"), "{said}");
    assert_eq!(course.mine(), course.source("step02-uts"));
    course.works(&["hint"]);
    fs::remove_file(course.path("mine/Cargo.toml")).expect("a file");
    course.fails(&["start"], "move it away");
}
