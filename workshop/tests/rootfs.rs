//! `cargo workshop rootfs`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

fn rootfs(folder: &Path, args: &[&str], stdin: Option<&[u8]>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_workshop"))
        .arg("rootfs")
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    // It may have refused before it read all.
    let _ = pipe.write_all(stdin.unwrap_or_default());
    drop(pipe);
    child.wait_with_output().expect("it ends")
}

#[track_caller]
fn works(folder: &Path, args: &[&str], stdin: Option<&[u8]>) -> String {
    let output = rootfs(folder, args, stdin);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
fn fails(folder: &Path, args: &[&str], stdin: Option<&[u8]>, with: &str) {
    let output = rootfs(folder, args, stdin);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(with), "{with:?} is not in {errors}");
    let left = fs::read_dir(folder).expect("a folder").flatten();
    let left = left.filter(|e| e.file_name().as_encoded_bytes()[0] == b'.');
    assert_eq!(left.count(), 0, "something unfinished is left");
}

/// A tar archive with one file.
fn archive() -> Vec<u8> {
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("only"), "from the archive").expect("a file");
    let tar = Command::new("tar")
        .args(["-c", "-C"])
        .arg(folder.path())
        .arg("only")
        .output()
        .expect("tar");
    assert!(tar.status.success());
    tar.stdout
}

fn only(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join("fs/only")).ok()
}

#[test]
fn from_what_this_machine_has() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    let said = works(folder, &["--from", "host", "--dir", "other"], None);
    assert!(said.starts_with("made other from this machine's"), "{said}");
    assert!(said.contains(" files, "), "{said}");
    assert!(folder.join("other/bin/sh").exists());
    assert!(works(folder, &[], None).starts_with("made fs from "));
    assert!(folder.join("fs/bin/sh").exists());
}

#[test]
fn from_an_archive() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    works(folder, &["--from", "-"], Some(&archive()));
    assert_eq!(only(folder).as_deref(), Some("from the archive"));
    let file = folder.join("a.tar");
    fs::write(&file, archive()).expect("a file");
    let zipped = Command::new("gzip").arg(&file).status().expect("gzip");
    assert!(zipped.success());
    works(folder, &["--from", "a.tar.gz", "--force"], None);
    assert_eq!(only(folder).as_deref(), Some("from the archive"));
    fails(folder, &["--from", "no", "--dir", "x"], None, "(ENOENT)");
}

#[test]
fn a_root_that_is_there_stays_without_force() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    works(folder, &["--from", "-"], Some(&archive()));
    fails(folder, &[], None, "--force replaces it");
    assert!(only(folder).is_some());
    works(folder, &["--force"], None);
    assert!(only(folder).is_none());
    assert!(folder.join("fs/bin/sh").exists());
}

#[test]
fn what_replaces_it_must_be_complete() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    works(folder, &["--from", "-"], Some(&archive()));
    let half = &archive()[..600];
    fails(folder, &["--from", "-", "--force"], Some(half), "a damaged one");
    assert_eq!(only(folder).as_deref(), Some("from the archive"));
}

#[test]
fn what_we_did_not_make_is_never_removed() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    fs::create_dir(folder.join("fs")).expect("a folder");
    fs::write(folder.join("fs/only"), "mine").expect("a file");
    fails(folder, &["--force"], None, "no root that we made");
    assert_eq!(only(folder).as_deref(), Some("mine"));
    File::create(folder.join("file")).expect("a file");
    fails(folder, &["--dir", "file", "--force"], None, "no root that we made");
    // An empty folder is as good as none.
    fs::create_dir(folder.join("empty")).expect("a folder");
    works(folder, &["--dir", "empty"], None);
}

/// A removal would go on in what is mounted there.
#[test]
fn a_root_with_a_mount_in_it_stays() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    works(folder, &["--from", "-"], Some(&archive()));
    fs::create_dir_all(folder.join("fs/home")).expect("a folder");
    let script = "mount -t tmpfs home fs/home && echo kept > fs/home/file && \
                  ! \"$WORKSHOP\" rootfs --force && cat fs/home/file";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .env("WORKSHOP", env!("CARGO_BIN_EXE_workshop"))
        .current_dir(folder)
        .output()
        .expect("unshare");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.stdout, b"kept\n", "{errors}");
    assert!(errors.contains("tmpfs is mounted in fs: `umount "), "{errors}");
    assert!(only(folder).is_some());
}

#[test]
fn an_interrupted_one_leaves_nothing() {
    let folder = TempDir::new().expect("a folder");
    let mut child = Command::new(env!("CARGO_BIN_EXE_workshop"))
        .args(["rootfs", "--from", "-"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    // A file of which the rest does not come.
    let archive = archive();
    pipe.write_all(&archive[..600]).expect("room in the pipe");
    let entries = || fs::read_dir(folder.path()).expect("a folder").count();
    let begun = Instant::now();
    while entries() == 0 && begun.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(entries(), 1, "it has not begun");
    let pid = i32::try_from(child.id()).expect("a PID");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("it is there");
    // What sends the archive gets the Ctrl-C, too.
    drop(pipe);
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert_eq!(entries(), 0, "something unfinished is left");
}

#[test]
fn what_is_too_large_says_how_to_allow_it() {
    let folder = TempDir::new().expect("a folder");
    let args = ["--from", "-", "--limit", "0"];
    fails(folder.path(), &args, Some(&archive()), "--limit allows more");
}
