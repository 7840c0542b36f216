//! Roots that are unpacked from an archive, and archives that mean harm.

mod sandbox;

use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::errno::Errno;
use rootfs::{unpack, unpack_at_most};
use sandbox::{errno, is_root, listing, skip_even_in_ci};
use tar::{EntryType, Header};
use tempfile::TempDir;

/// An archive in the making. Names go in as they are: tar's own builder
/// refuses those that matter here.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn entry(
        mut self,
        kind: EntryType,
        name: &str,
        to: &str,
        content: &[u8],
    ) -> Self {
        let mut header = Header::new_gnu();
        for (text, long) in
            [(name, EntryType::GNULongName), (to, EntryType::GNULongLink)]
        {
            if text.len() > 100 {
                self = self.entry(long, "long", "", text.as_bytes());
            }
        }
        let old = header.as_old_mut();
        for (field, text) in [(&mut old.name, name), (&mut old.linkname, to)] {
            let length = text.len().min(field.len());
            field[..length].copy_from_slice(&text.as_bytes()[..length]);
        }
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o6751);
        header.set_uid(4321);
        header.set_gid(1234);
        header.set_mtime(1_000_000_000);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str) -> Self {
        self.entry(EntryType::Regular, name, "", b"content")
    }

    fn dir(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", b"")
    }

    fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(EntryType::Symlink, name, to, b"")
    }

    fn link(self, name: &str, to: &str) -> Self {
        self.entry(EntryType::Link, name, to, b"")
    }

    fn fifo(self, name: &str) -> Self {
        self.entry(EntryType::Fifo, name, "", b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn small() -> Vec<u8> {
    Archive::default()
        .dir("./")
        .dir("./bin/")
        .file("./bin/sh")
        .symlink("./bin/ash", "/bin/sh")
        .symlink("./usr/bin", "../bin")
        .link("./bin/bash", "./bin/sh")
        .file("./usr/bin/through")
        .fifo("./pipe")
        .file(&format!("./{}", "long/".repeat(60)))
        .end()
}

/// A folder with a victim in it, and room for a target.
struct Field(TempDir);

impl Field {
    fn new() -> Field {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/victim"), "mine").unwrap();
        Field(directory)
    }

    fn outside(&self) -> String {
        self.0.path().join("outside").display().to_string()
    }

    fn target(&self) -> PathBuf {
        self.0.path().join("target")
    }

    fn is_untouched(&self) -> bool {
        listing(self.0.path()) == listing(Field::new().0.path())
    }
}

#[test]
fn a_good_archive_is_unpacked() {
    let plain = small();
    for bytes in [&plain, &gzip(&plain)] {
        let field = Field::new();
        let root = field.target();
        let summary = unpack(bytes.as_slice(), &root).unwrap();
        assert_eq!(
            summary.to_string(),
            "the archive: 7 files, 0.0 MB",
            "{summary:?}"
        );
        assert_eq!(summary.bytes, 3 * b"content".len() as u64);

        let of = |name: &str| root.join(name).symlink_metadata().unwrap();
        assert_eq!(fs::read(root.join("bin/through")).unwrap(), b"content");
        assert_eq!(
            fs::read_link(root.join("bin/ash")).unwrap(),
            Path::new("/bin/sh")
        );
        assert_eq!(of("bin/sh").ino(), of("bin/bash").ino());
        assert_eq!(of("bin/sh").nlink(), 2);
        assert_eq!(of("bin/sh").mtime(), 1_000_000_000);
        assert!(of("pipe").file_type().is_fifo());
        // No setuid, no setgid; and the umask has no say.
        for (name, mode) in [
            ("", 0o755),
            ("bin", 0o751),
            ("bin/sh", 0o751),
            ("pipe", 0o751),
            ("usr", 0o755),
        ] {
            assert_eq!(of(name).mode() & 0o7777, mode, "{name}");
        }
        let me = fs::metadata(field.outside()).unwrap();
        let owner = if is_root() { (4321, 1234) } else { (me.uid(), me.gid()) };
        for name in ["bin", "bin/sh", "bin/ash", "pipe"] {
            assert_eq!((of(name).uid(), of(name).gid()), owner, "{name}");
        }
        fs::remove_dir_all(&root).unwrap();
        assert!(field.is_untouched());
    }
}

/// Each lands outside if it is believed.
#[test]
fn an_escape_is_refused() {
    type Make = fn(Archive, &str) -> Archive;
    let escapes: &[(&str, Make)] = &[
        ("absolute", |a, out| a.file(&format!("{out}/new"))),
        ("absolute victim", |a, out| a.file(&format!("{out}/victim"))),
        ("absolute directory", |a, out| a.dir(&format!("{out}/new"))),
        ("dots", |a, _| a.file("../outside/new")),
        ("dots inside", |a, _| a.dir("d").file("d/../../outside/new")),
        ("harmless dots", |a, _| a.dir("d").file("d/../new")),
        ("dots at the end", |a, _| a.dir("d/..")),
        ("only dots", |a, _| a.dir("..")),
        ("no name", |a, _| a.file("")),
        ("a file as the root", |a, _| a.file("./")),
        ("a symlink as the root", |a, out| a.symlink(".", out)),
        ("through a symlink", |a, out| a.symlink("s", out).file("s/new")),
        ("onto a victim", |a, out| a.symlink("s", out).file("s/victim")),
        ("through dots", |a, _| a.symlink("s", "../outside").file("s/victim")),
        ("through two", |a, _| {
            a.symlink("s", "t/outside").symlink("t", "..").file("s/victim")
        }),
        ("through a deep one", |a, _| {
            a.dir("d").symlink("d/s", "../../outside").file("d/s/victim")
        }),
        ("a directory", |a, out| a.symlink("s", out).dir("s/new")),
        ("parents", |a, out| a.symlink("s", out).file("s/new/new/new")),
        ("a symlink", |a, out| a.symlink("s", out).symlink("s/new", "x")),
        ("a FIFO", |a, out| a.symlink("s", out).fifo("s/new")),
        ("a link there", |a, out| {
            a.file("f").symlink("s", out).link("s/new", "f")
        }),
        ("a link from there", |a, out| {
            a.symlink("s", out).link("new", "s/victim")
        }),
        ("an absolute link", |a, out| a.link("new", &format!("{out}/victim"))),
        ("a link with dots", |a, _| a.link("new", "../outside/victim")),
        ("the root's own proc", |a, _| {
            a.symlink("s", "/proc/self/cwd").file("s/new")
        }),
    ];
    for (name, make) in escapes {
        let field = Field::new();
        let archive = make(Archive::default().file("a"), &field.outside());
        let error =
            unpack(archive.end().as_slice(), &field.target()).expect_err(name);
        assert_eq!(errno(&error), Errno::EXDEV, "{name}: {error:#}");
        assert!(field.is_untouched(), "{name}");
    }
}

/// These stay inside when nothing is written through a name that is taken.
#[test]
fn a_name_that_comes_twice_is_replaced() {
    type Make = fn(Archive, &str) -> Archive;
    let archives: &[(&str, Make)] = &[
        ("file over symlink", |a, out| {
            a.symlink("x", &format!("{out}/victim")).file("x")
        }),
        ("file over dangling symlink", |a, out| {
            a.symlink("x", &format!("{out}/new")).file("x")
        }),
        ("file over link to symlink", |a, out| {
            a.symlink("s", &format!("{out}/victim")).link("x", "s").file("x")
        }),
        ("directory over symlink", |a, out| {
            a.symlink("x", out).dir("x").file("x/victim")
        }),
        ("FIFO over symlink", |a, out| a.symlink("x", out).fifo("x")),
        ("symlink over file", |a, out| a.file("x").symlink("x", out)),
        ("directory twice", |a, _| a.dir("x").file("x/y").dir("x")),
    ];
    for (name, make) in archives {
        let field = Field::new();
        let archive = make(Archive::default(), &field.outside()).end();
        unpack(archive.as_slice(), &field.target()).expect(name);
        fs::remove_dir_all(field.target()).unwrap();
        assert!(field.is_untouched(), "{name}");
    }
}

#[test]
fn what_is_no_root_is_refused() {
    let long = "x".repeat(5000);
    let deep = "x/".repeat(2500);
    let sparse = EntryType::GNUSparse;
    for (name, archive) in [
        ("nothing", Vec::new()),
        ("no entries", Archive::default().end()),
        ("text", b"#!/bin/sh\necho hello\n".repeat(100)),
        ("zeros in gzip", gzip(&[0; 4096])),
        ("nothing in gzip", gzip(&[])),
        ("gzip in gzip", gzip(&gzip(&small()))),
        ("long name", Archive::default().file(&long).end()),
        ("deep name", Archive::default().file(&deep).end()),
        ("long link", Archive::default().symlink("x", &long).end()),
        ("link to nothing", Archive::default().link("x", "y").end()),
        ("symlink to nothing", Archive::default().symlink("x", "").end()),
        ("link to itself", Archive::default().file("x").link("x", "x").end()),
        ("loop", Archive::default().symlink("x", "x").file("x/y").end()),
        ("dangling", Archive::default().symlink("x", "y").file("x/y").end()),
        ("file above", Archive::default().file("x").file("x/y").end()),
        ("file over directory", Archive::default().dir("x").file("x").end()),
        ("sparse", Archive::default().entry(sparse, "x", "", b"").end()),
    ] {
        let field = Field::new();
        let error =
            unpack(archive.as_slice(), &field.target()).expect_err(name);
        assert!(!format!("{error:#}").contains('\n'), "{name}: {error:#}");
        assert!(field.is_untouched(), "{name}");
    }
}

#[test]
fn a_truncated_archive_is_an_error() {
    let plain = small();
    let packed = gzip(&plain);
    // Without the second of the two blocks of zeros it still is whole.
    let cuts = (0..plain.len() - 512).step_by(256);
    let plain = cuts.map(|cut| &plain[..cut]);
    for archive in plain.chain((0..packed.len()).map(|cut| &packed[..cut])) {
        let field = Field::new();
        unpack(archive, &field.target())
            .expect_err(&format!("{} bytes", archive.len()));
        assert!(field.is_untouched(), "{} bytes", archive.len());
    }
}

#[test]
fn a_damaged_archive_is_an_error() {
    let mut packed = gzip(&small());
    let checksum = packed.len() - 8;
    packed[checksum] ^= 1;
    let field = Field::new();
    unpack(packed.as_slice(), &field.target()).unwrap_err();
    assert!(field.is_untouched());
}

#[test]
fn a_bomb_is_defused() {
    let zeros = vec![0; 3 << 20];
    let regular = EntryType::Regular;
    let many = (0..5000).fold(Archive::default(), |a, n| {
        a.entry(regular, &n.to_string(), "", b"")
    });
    for (name, archive, limit) in [
        (
            "a large file",
            Archive::default().entry(regular, "x", "", &zeros),
            1 << 20,
        ),
        ("many files", many, 1 << 20),
        // Read into memory, whatever the limit.
        (
            "a long name",
            Archive::default()
                .entry(EntryType::GNULongName, "x", "", &zeros)
                .file("x"),
            rootfs::DEFAULT_LIMIT,
        ),
        (
            "attributes",
            Archive::default()
                .file("x")
                .entry(EntryType::XHeader, "x", "", &zeros)
                .file("x"),
            rootfs::DEFAULT_LIMIT,
        ),
    ] {
        let field = Field::new();
        let packed = gzip(&archive.end());
        let error = unpack_at_most(limit, packed.as_slice(), &field.target())
            .expect_err(name);
        assert_eq!(errno(&error), Errno::EFBIG, "{name}: {error:#}");
        assert!(field.is_untouched(), "{name}");
    }
    // And what just fits, fits.
    let archive =
        Archive::default().entry(regular, "x", "", &zeros[..1000]).end();
    let field = Field::new();
    let length = archive.len() as u64;
    unpack_at_most(length, archive.as_slice(), &field.target()).unwrap();
}

#[test]
fn device_nodes_need_root() {
    let archive = Archive::default()
        .dir("dev")
        .entry(EntryType::Char, "dev/null", "", b"")
        .entry(EntryType::Block, "dev/ram", "", b"")
        .file("dev/file")
        .end();
    let field = Field::new();
    let summary = unpack(archive.as_slice(), &field.target()).unwrap();
    let dev = field.target().join("dev");
    let count = fs::read_dir(&dev).unwrap().count();
    if is_root() {
        let null = fs::metadata(dev.join("null")).unwrap();
        assert!(null.file_type().is_char_device());
        assert_eq!(null.rdev(), nix::sys::stat::makedev(1, 3));
        assert_eq!((count, summary.skipped), (3, 0));
    } else {
        assert_eq!((count, summary.skipped), (1, 2));
        assert_eq!(
            summary.to_string(),
            "the archive: 1 files, 0.0 MB, 2 device nodes left out \
             (not root)"
        );
    }
}

/// The root of a user namespace may not make devices, nor give files to a
/// user whom the namespace does not know.
#[test]
fn root_of_a_user_namespace_unpacks_too() {
    if !is_root() {
        return skip_even_in_ci("a user has no capabilities to lose");
    }
    let output = Command::new("unshare")
        .arg("-r")
        .arg(env::current_exe().unwrap())
        .args(["--exact", "a_good_archive_is_unpacked"])
        .arg("device_nodes_need_root")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("2 passed"), "{printed}");
}

/// What GNU tar writes, in its formats without a limit on names.
#[test]
fn archives_of_gnu_tar_are_unpacked() {
    let field = Field::new();
    let source = field.0.path().join("source");
    unpack(small().as_slice(), &source).unwrap();
    let name = "n".repeat(120);
    fs::write(source.join(&name), vec![7; 100_000]).unwrap();
    for format in ["gnu", "oldgnu", "pax"] {
        let tar = Command::new("tar")
            .args(["-C", source.to_str().unwrap(), "-czf", "-"])
            .args([&format!("--format={format}"), "."])
            .output()
            .unwrap();
        assert!(tar.status.success(), "{tar:?}");
        let target = field.0.path().join(format);
        unpack(tar.stdout.as_slice(), &target).unwrap();
        assert!(listing(&target) == listing(&source), "{format}");
    }
}
