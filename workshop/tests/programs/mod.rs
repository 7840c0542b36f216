//! The programs of the steps, which are another package's: built for the
//! tests that start them.

use std::path::{Path, PathBuf};
use std::process::Command;

pub const STEPS: [&str; 7] = [
    "step01-exec",
    "step02-uts",
    "step03-pid",
    "step04-chroot",
    "step05-proc",
    "step06-pivot-root",
    "step07-cgroups",
];

/// Builds them. They are beside `workshop`, in the folder that this gives.
pub fn build() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_workshop")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline"]);
    cargo.args(STEPS.map(|step| format!("--package={step}")));
    cargo.arg("--target-dir").arg(folder.parent().unwrap());
    cargo.args(folder.ends_with("release").then_some("--release"));
    assert!(cargo.status().unwrap().success(), "the steps do not build");
    folder.to_owned()
}
