//! Roots that are built from this machine's programs.

mod sandbox;

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, chroot};
use rootfs::{Source, add_program, build, build_from, find_or_build};
use sandbox::{apart, errno, is_root, listing, skip_even_in_ci};
use tempfile::TempDir;

const PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Says why a test does not run. In CI what it needs is there, so that is an
/// error.
fn skip(reason: &str) {
    assert!(env::var_os("CI").is_none(), "cannot test: {reason}");
    skip_even_in_ci(reason);
}

fn host_root() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("fs");
    build_from(&Source::Host, &root).unwrap();
    (directory, root)
}

/// A command that starts in the root as a container would; None where this
/// user may not.
fn inside(root: &Path) -> Option<Command> {
    let mut command = Command::new("unshare");
    if !is_root() {
        let probe = Command::new("unshare").args(["-r", "true"]).output();
        if !probe.unwrap().status.success() {
            skip_even_in_ci("no user namespaces for this user");
            return None;
        }
        command.arg("-r");
    }
    command.arg("-R").arg(root).stdin(Stdio::null());
    command.env_clear().env("PATH", env::var_os("PATH").unwrap());
    Some(command)
}

fn names(directory: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

/// What a shell in the root prints.
fn shell(root: &Path, script: &str) -> Option<String> {
    let output = inside(root)?
        .args(["/bin/sh", "-c", script])
        .env("PATH", PATH)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn has_what_a_shell_needs(root: &Path) {
    let Some(printed) = shell(
        root,
        "pwd; id; whoami; /usr/bin/env true && /sbin/chroot / echo x |
             sed s/x/y/
         echo hello >/tmp/file && cat /tmp/file && rm /tmp/file
         ls -d /proc /sys /dev /tmp /root /etc | wc -l
         stat -L -c %a / /tmp /root /etc/passwd /bin/sh | tr '\\n' ' '",
    ) else {
        return;
    };
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "/");
    assert!(lines[1].starts_with("uid=0(root) gid=0(root)"), "{printed}");
    assert_eq!(
        lines[2..],
        ["root", "y", "hello", "6", "755 1777 700 644 755 "]
    );
}

#[test]
fn the_hosts_programs_make_a_root() {
    let (_directory, root) = host_root();
    has_what_a_shell_needs(&root);
}

#[test]
fn busybox_makes_a_root() {
    let source = Source::choose();
    if source == Source::Host {
        return skip("no busybox on this machine");
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("fs");
    let summary = build_from(&source, &root).unwrap();
    assert!(summary.to_string().starts_with("busybox: "), "{summary}");
    assert_eq!(
        fs::read_link(root.join("bin/sh")).unwrap(),
        Path::new("busybox")
    );
    has_what_a_shell_needs(&root);
}

/// 127 is what ld.so exits with when a library is missing, and what a missing
/// loader looks like.
#[test]
fn every_program_starts() {
    let (_directory, root) = host_root();
    let programs = names(&root.join("bin"));
    assert!(programs.len() > 20, "{programs:?}");
    for program in programs {
        let Some(mut command) = inside(&root) else { return };
        let path = Path::new("/bin").join(program);
        let output = command.arg(&path).arg("--version").output().unwrap();
        let code = output.status.code();
        assert!(code.is_some_and(|c| c < 126), "{path:?}: {output:?}");
    }
}

#[test]
fn nothing_is_linked_to_the_host_or_setuid() {
    let (_directory, root) = host_root();
    let count = listing(&root)
        .keys()
        .map(|name| root.join(name).symlink_metadata().unwrap())
        .filter(|of| of.is_file())
        .inspect(|of| {
            assert_eq!(of.nlink(), 1);
            assert!([0o644, 0o755].contains(&(of.mode() & 0o7777)));
        })
        .count();
    assert!(count > 20);
    let host = fs::metadata("/bin/sh").unwrap();
    let copy = fs::metadata(root.join("bin/sh")).unwrap();
    assert_ne!((host.dev(), host.ino()), (copy.dev(), copy.ino()));
    assert_eq!(host.len(), copy.len());
}

/// The very same, whatever the umask is and whatever was in the way.
#[test]
fn modes_do_not_depend_on_the_umask() {
    let (_directory, root) = host_root();
    for mask in [0, 0o077, 0o777] {
        let other = tempfile::tempdir().unwrap();
        let target = other.path().join("fs");
        fs::create_dir(&target).unwrap();
        apart(CloneFlags::empty(), || {
            umask(Mode::from_bits_truncate(mask));
            build_from(&Source::Host, &target).unwrap();
        });
        assert!(listing(&target) == listing(&root), "umask {mask:o}");
    }
}

#[test]
fn fs_is_built_once() {
    let directory = tempfile::tempdir().unwrap();
    apart(CloneFlags::empty(), || {
        chdir(directory.path()).unwrap();
        assert_eq!(find_or_build(None).unwrap(), Path::new("fs"));
        let inode = fs::metadata("fs").unwrap().ino();
        assert_eq!(find_or_build(None).unwrap(), Path::new("fs"));
        assert_eq!(fs::metadata("fs").unwrap().ino(), inode);
    });
    assert_eq!(names(directory.path()), BTreeSet::from(["fs".into()]));
}

#[test]
fn a_named_root_is_not_built() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let error = find_or_build(Some(&missing)).unwrap_err();
    assert_eq!(errno(&error), Errno::ENOENT);
    assert_eq!(
        error.to_string(),
        format!("cannot use {missing:?} as the root")
    );
    File::create(&missing).unwrap();
    let error = find_or_build(Some(&missing)).unwrap_err();
    assert_eq!(errno(&error), Errno::ENOTDIR);
    let found = find_or_build(Some(directory.path())).unwrap();
    assert_eq!(found, directory.path());
}

#[test]
fn what_is_there_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full/file"), "mine").unwrap();
    fs::write(at("file"), "mine").unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    let before = listing(directory.path());
    for (name, expected) in [
        ("full", Errno::ENOTEMPTY),
        ("file", Errno::ENOTDIR),
        ("dangling", Errno::ENOTDIR),
        ("no/such/parent", Errno::ENOENT),
        ("full/..", Errno::ENOTEMPTY),
    ] {
        let error = build_from(&Source::Host, &at(name)).unwrap_err();
        assert_eq!(errno(&error), expected, "{name}");
    }
    assert!(listing(directory.path()) == before);
}

#[test]
fn of_builders_at_once_one_wins() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let build = || build(Path::new("fs")).map(|_| ());
    let find = || find_or_build(None).map(|_| ());
    let builders: [fn() -> anyhow::Result<()>; 6] =
        [build, find, build, find, build, find];
    let results = thread::scope(|scope| {
        let builders = builders.map(|builder| {
            scope.spawn(move || {
                apart(CloneFlags::empty(), || {
                    chdir(directory).unwrap();
                    builder()
                })
            })
        });
        builders.map(|one| one.join().unwrap())
    });
    // Who asks for a root gets one; who wants to build one may be too late.
    for (position, result) in results.into_iter().enumerate() {
        match result {
            Ok(_) => {}
            Err(error) if position % 2 == 0 => {
                assert_eq!(errno(&error), Errno::ENOTEMPTY);
            }
            Err(error) => panic!("{error:#}"),
        }
    }
    assert_eq!(names(directory), BTreeSet::from(["fs".into()]));
    has_what_a_shell_needs(&directory.join("fs"));
}

#[test]
fn leftovers_are_swept_up_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in [
        ".fs.unfinished.killed",
        ".fs.unfinished.inwork",
        ".fs.unfinished.longername",
        ".fs.backup",
        ".other.unfinished.killed",
    ] {
        fs::create_dir_all(at(name).join("bin")).unwrap();
    }
    let held = File::open(at(".fs.unfinished.inwork")).unwrap();
    let _lock = Flock::lock(held, FlockArg::LockExclusive).unwrap();
    let mut expected = names(directory.path());
    expected.remove(Path::new(".fs.unfinished.killed").as_os_str());
    expected.insert("fs".into());

    build_from(&Source::Host, &at("fs")).unwrap();
    assert_eq!(names(directory.path()), expected);
}

/// Starts another test of this file, kills it while it builds, and looks at
/// what it leaves.
#[test]
fn a_killed_build_leaves_no_half_root() {
    let (_directory, whole) = host_root();
    let (mut unfinished, rounds) = (0, 24);
    for round in 0..rounds {
        let directory = tempfile::tempdir().unwrap();
        let mut builder = Command::new(env::current_exe().unwrap())
            .args(["--exact", "nothing_is_linked_to_the_host_or_setuid"])
            .env("TMPDIR", directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Not before it has begun, and then a bit later each time.
        let deadline = Instant::now() + Duration::from_secs(10);
        while names(directory.path()).is_empty() {
            assert!(Instant::now() < deadline, "it does not build");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(4 * round));
        builder.kill().unwrap();
        let status = builder.wait().unwrap();
        if status.signal().is_none() {
            continue;
        }

        let its = names(directory.path());
        let Some(its) = its.first().map(|name| directory.path().join(name))
        else {
            continue;
        };
        let root = its.join("fs");
        if root.exists() {
            // It may have been about to remove its finished root.
            continue;
        }
        unfinished += names(&its).len();
        build_from(&Source::Host, &root).unwrap();
        assert_eq!(names(&its), BTreeSet::from(["fs".into()]));
        assert!(listing(&root) == listing(&whole));
    }
    assert!(unfinished > 0, "no build was killed in time");
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    if !is_root() {
        return skip_even_in_ci("mounting a small disk needs root");
    }
    let directory = tempfile::tempdir().unwrap();
    apart(CloneFlags::CLONE_NEWNS, || {
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        mount(
            Some("tmpfs"),
            directory.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=4m"),
        )
        .unwrap();
        let target = directory.path().join("fs");
        let error = build_from(&Source::Host, &target).unwrap_err();
        assert_eq!(errno(&error), Errno::ENOSPC);
        assert!(!format!("{error:#}").contains('\n'));
        assert!(names(directory.path()).is_empty());
    });
}

/// In a root that we built there is no cache of ld.so, no multiarch, no PATH
/// to speak of: another kind of host.
#[test]
fn a_root_can_be_built_inside_a_root() {
    if !is_root() {
        return skip_even_in_ci("chroot(2) needs root");
    }
    let (_directory, host) = host_root();
    apart(CloneFlags::empty(), || {
        chroot(&host).unwrap();
        chdir("/tmp").unwrap();
        // One file with two names, as all of coreutils is somewhere.
        fs::remove_file("/bin/mv").unwrap();
        symlink("cp", "/bin/mv").unwrap();
        build_from(&Source::Host, Path::new("inner")).unwrap();
        assert_eq!(fs::read_link("inner/bin/mv").unwrap(), Path::new("cp"));
        assert!(names(Path::new("inner/bin")) == names(Path::new("/bin")));
        fs::remove_file("/bin/sh").unwrap();
        let error = build_from(&Source::Host, Path::new("other")).unwrap_err();
        assert_eq!(errno(&error), Errno::ENOENT);
        assert!(format!("{error:#}").contains("install busybox"));
        assert_eq!(names(Path::new("/tmp")), BTreeSet::from(["inner".into()]));
    });
    has_what_a_shell_needs(&host.join("tmp/inner"));
}

/// Compiles a program that prints what `libinner` says by way of `libouter`.
/// Each library is in a directory of its own.
fn compile(at: &Path, program: &[&str], outer: &[&str], says: &str) -> PathBuf {
    let cc = |arguments: &[&str], source: &str| {
        let mut cc = Command::new("cc")
            .args(["-x", "c", "-", "-x", "none"])
            .args(arguments)
            .current_dir(at)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        cc.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
        assert!(cc.wait().unwrap().success());
    };
    for directory in ["inner", "outer"] {
        fs::create_dir_all(at.join(directory)).unwrap();
    }
    let inner = format!("const char *inner(void) {{ return \"{says}\"; }}");
    let so = ["-shared", "-fPIC", "-o"];
    cc(&[&so[..], &["inner/libprobeinner.so"]].concat(), &inner);
    cc(
        &[
            &so[..],
            &["outer/libprobeouter.so", "-Linner", "-lprobeinner"],
            outer,
        ]
        .concat(),
        "const char *inner(void);
         const char *outer(void) { return inner(); }",
    );
    cc(
        &[
            &["-o", "program", "-Louter", "-lprobeouter"][..],
            &["-Wl,--allow-shlib-undefined"],
            program,
        ]
        .concat(),
        "#include <stdio.h>
         const char *outer(void);
         int main(void) { puts(outer()); }",
    );
    at.join("program")
}

#[test]
fn libraries_are_found_where_the_program_says() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let wrong = format!("-Wl,-rpath,{}/wrong", directory.path().display());
    let plain = |name: &str| {
        format!("-Wl,-rpath,{}/{name}", directory.path().display())
    };
    let old = "-Wl,--disable-new-dtags";
    let new = "-Wl,--enable-new-dtags";
    for (name, program, outer) in [
        // DT_RUNPATH counts for the file that has it.
        (
            "origin",
            vec![new, "-Wl,-rpath,$ORIGIN/outer"],
            vec![new, "-Wl,-rpath,${ORIGIN}/../inner"],
        ),
        (
            "absolute",
            vec![new, &wrong, &plain("absolute/outer")],
            vec![new, &plain("absolute/inner")],
        ),
        // DT_RPATH counts where there is no DT_RUNPATH,
        (
            "old",
            vec![old, "-Wl,-rpath,$ORIGIN/outer"],
            vec![old, "-Wl,-rpath,$ORIGIN/../inner"],
        ),
        // and for the libraries of libraries, too.
        (
            "inherited",
            vec![
                old,
                &wrong,
                "-Wl,-rpath,$ORIGIN/outer",
                "-Wl,-rpath,$ORIGIN/inner",
            ],
            vec![old],
        ),
    ] {
        fs::create_dir(at(name)).unwrap();
        let program = compile(&at(name), &program, &outer, name);
        // A library of that name for another processor comes first.
        fs::create_dir_all(at("wrong")).unwrap();
        let mut foreign =
            fs::read(at(name).join("outer/libprobeouter.so")).unwrap();
        foreign[18] ^= 0xff; // e_machine
        fs::write(at("wrong/libprobeouter.so"), foreign).unwrap();

        let root = at(name).join("fs");
        build_from(&Source::Host, &root).unwrap();
        add_program(&root, &program, Path::new("/opt/probe")).unwrap();
        // Its libraries are not to be found outside of the root.
        fs::remove_dir_all(at(name).join("outer")).unwrap();
        if let Some(printed) = shell(&root, "/opt/probe") {
            assert_eq!(printed, format!("{name}\n"));
        }
    }
}

/// The root of another distribution, where /lib64 is a symlink.
#[test]
fn a_program_can_be_added_to_a_merged_root() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for name in ["bin", "lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(name)).unwrap();
        symlink(Path::new("usr").join(name), root.join(name)).unwrap();
    }
    let sh = Path::new("/bin/sh");
    for _ in 0..2 {
        add_program(root, sh, sh).unwrap();
        let Some(printed) = shell(root, "echo works") else {
            return;
        };
        assert_eq!(printed, "works\n");
    }
}

#[test]
fn what_cannot_be_added_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("fs")).unwrap();
    fs::create_dir_all(at("outside")).unwrap();
    symlink("../outside", at("fs/relative")).unwrap();
    symlink(at("outside"), at("fs/absolute")).unwrap();
    fs::write(at("script"), "#!/bin/sh\n").unwrap();
    let before = listing(&at("outside"));
    let add = |program: &Path, to: &str| {
        errno(&add_program(&at("fs"), program, Path::new(to)).unwrap_err())
    };
    let echo = Path::new("/bin/echo");
    assert_eq!(add(&at("script"), "/bin/script"), Errno::ENOEXEC);
    assert_eq!(add(&at("missing"), "/bin/missing"), Errno::ENOENT);
    assert_eq!(add(echo, "/relative/echo"), Errno::EXDEV);
    assert_eq!(add(echo, "/absolute/echo"), Errno::EXDEV);
    assert_eq!(add(echo, "/../outside/echo"), Errno::EXDEV);
    assert!(listing(&at("outside")) == before);

    let program =
        compile(&at("outside"), &["-Wl,-rpath,$ORIGIN/outer"], &[], "");
    let error = add_program(&at("fs"), &program, Path::new("/bin/program"))
        .unwrap_err();
    assert_eq!(errno(&error), Errno::ENOENT);
    assert!(format!("{error:#}").contains("libprobeinner.so"), "{error:#}");
}

/// It is what one waits for at the very first command.
#[test]
fn building_takes_well_under_a_second() {
    let best = (0..3)
        .map(|_| {
            let start = Instant::now();
            host_root();
            start.elapsed()
        })
        .min();
    let _ = writeln!(io::stderr(), "built in {best:?}");
    assert!(best < Some(Duration::from_secs(1)), "{best:?}");
}
