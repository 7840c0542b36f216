//! `cargo workshop diff`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const STEPS: [&str; 7] = [
    "step01-exec",
    "step02-uts",
    "step03-pid",
    "step04-chroot",
    "step05-proc",
    "step06-pivot-root",
    "step07-cgroups",
];

fn diff(before: &str, after: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_workshop"))
        .args(["diff", before, after])
        .output()
        .expect("it starts")
}

fn out(before: &str, after: &str) -> String {
    let output = diff(before, after);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What a step's manifest declares to change, as the suite checks it.
fn declared(step: &str) -> BTreeSet<String> {
    let manifest = Path::new("..").join(step).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("a manifest");
    let (_, names) = manifest.split_once("changes = [").expect("changes");
    let (names, _) = names.split_once(']').expect("a list");
    names.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn neighbours_differ_in_what_they_declare() {
    for pair in STEPS.windows(2) {
        let text = out(pair[0], pair[1]);
        let (_, main) = text
            .split_once(&format!("+++ {}/src/main.rs\n", pair[1]))
            .expect("main.rs differs");
        let shown: BTreeSet<String> = main
            .lines()
            .filter_map(|line| line.strip_prefix("@@ "))
            .filter_map(|line| line.split_once(':'))
            .filter(|(name, _)| *name != "the head of the file")
            .filter_map(|(name, _)| name.split_once(' '))
            .map(|(_, name)| name.to_owned())
            .collect();
        let mut declared = declared(pair[1]);
        // `mod cgroup;` stands in the head.
        declared.remove("cgroup");
        assert_eq!(shown, declared, "{pair:?}");
    }
}

/// The lines with `-` and without `+`, or the other way round, of both ways
/// are the same.
#[test]
fn backwards_is_forwards_with_other_signs() {
    let pick = |text: &str, sign: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(sign));
        lines.map(str::to_owned).filter(|l| !l.starts_with(sign)).collect()
    };
    let (on, back) = (out("2", "4"), out("4", "2"));
    assert_eq!(pick(&on, "+"), pick(&back, "-"));
    assert_eq!(pick(&on, "-"), pick(&back, "+"));
}

#[test]
fn plain_where_nobody_looks() {
    let text = out("06", "07");
    assert!(!text.contains('\x1b'));
    assert!(!text.contains("ANCHOR"));
    assert!(text.contains("@@ the head of the file: new @@"));
}

#[test]
fn what_is_no_step_is_refused() {
    let output = diff("05", "08");
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("the steps are 01 to 07"), "{errors}");
}
