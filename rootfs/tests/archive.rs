//! Roots that are unpacked from an archive, and archives that mean harm.

mod sandbox;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use rootfs::{unpack, unpack_at_most};
use sandbox::{apart, errno, is_root, listing, skip_even_in_ci};
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

    /// A PAX record for the next entry.
    fn record(self, key: &str, value: &str) -> Self {
        let rest = format!(" {key}={value}\n");
        let digits = (rest.len() + 4).to_string().len();
        let record = format!("{}{rest}", rest.len() + digits);
        self.entry(EntryType::XHeader, "pax", "", record.as_bytes())
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
    let huge = i64::MAX.to_string();
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
        ("sparse by records", {
            Archive::default().record("GNU.sparse.major", "1").file("x").end()
        }),
        ("sparse and near the last number", sparse_to_the_brim()),
        ("more than there is", {
            Archive::default().record("size", &huge).file("x").end()
        }),
        ("nearly all numbers", {
            let largest = (u64::MAX - 1023).to_string();
            Archive::default().record("size", &largest).file("x").end()
        }),
        ("a number of line breaks", {
            let mut archive = Archive::default().file("x").end();
            archive[100..108].fill(b'\n');
            with_checksum(archive)
        }),
        ("too deep", Archive::default().dir(&"x/".repeat(129)).end()),
        ("a component of 256", {
            Archive::default().file(&"x".repeat(256)).end()
        }),
        ("a long name for an error", {
            Archive::default().file(&format!("../{}", "x".repeat(9000))).end()
        }),
        ("NUL in a name", {
            let name = format!("{}\0{}", "x".repeat(100), "y".repeat(100));
            Archive::default().file(&name).end()
        }),
        ("NUL in a record", {
            Archive::default().record("path", "x\0y").file("x").end()
        }),
        ("NUL in a symlink", {
            let to = format!("{}\0{}", "x".repeat(100), "y".repeat(100));
            Archive::default().symlink("x", &to).end()
        }),
        ("link to a later name", {
            Archive::default().link("x", "y").file("y").end()
        }),
        ("layers", Archive::default().file("manifest.json").end()),
    ] {
        let field = Field::new();
        let error =
            unpack(archive.as_slice(), &field.target()).expect_err(name);
        let line = format!("{error:#}");
        assert!(!line.contains(char::is_control), "{name}: {line:?}");
        assert!(line.len() < 400, "{name}: {line:?}");
        assert!(field.is_untouched(), "{name}");
    }
}

/// With the sum that a header has of itself.
fn with_checksum(mut archive: Vec<u8>) -> Vec<u8> {
    let mut header: Header = Header::from_byte_slice(&archive[..512]).clone();
    header.set_cksum();
    archive[..512].copy_from_slice(header.as_bytes());
    archive
}

/// A sparse file whose map goes on in a block of its own, where adding its
/// size to the position leaves no number for what comes next.
fn sparse_to_the_brim() -> Vec<u8> {
    let kind = EntryType::GNUSparse;
    let mut archive = Archive::default().entry(kind, "x", "", b"").end();
    let mut header: Header = Header::from_byte_slice(&archive[..512]).clone();
    header.set_size(u64::MAX - 1023);
    header.as_gnu_mut().expect("GNU").set_is_extended(true);
    archive[..512].copy_from_slice(header.as_bytes());
    with_checksum(archive)
}

/// Odd, and allowed.
#[test]
fn names_and_members_may_be_odd() {
    let component = "n".repeat(200);
    // Below PATH_MAX with what comes before it.
    let long = vec![component.as_str(); 19].join("/");
    let archive = Archive::default()
        .file("./a/./b//c")
        .file("with/slash/")
        .file("\n\u{1b}[31m")
        .file(&long)
        .record("path", &format!("{long}x"))
        .file("short")
        .record("SCHILY.xattr.security.capability", "\u{1}\0\0\u{2}")
        .file("capable")
        .record("mtime", "-1")
        .file("old");
    let mut bytes = archive.0;
    let mut odd = Archive::default().file("ZZ").end();
    odd[..2].copy_from_slice(b"\xff\xfe");
    bytes.extend(with_checksum(odd));

    // And gzip members one after the other are one archive.
    let (start, end) = bytes.split_at(1000);
    let members = [gzip(start), gzip(end)].concat();
    for bytes in [&bytes, &members] {
        let field = Field::new();
        let root = field.target();
        // A pipe may give a byte at a time.
        unpack(Dribble(bytes), &root).unwrap();
        for name in ["a/b/c", "with/slash", "\n\u{1b}[31m", "capable", "old"] {
            let content = fs::read(root.join(name)).expect(name);
            assert_eq!(content, b"content", "{name:?}");
        }
        assert!(root.join(&long).is_file());
        assert!(root.join(format!("{long}x")).is_file());
        assert!(root.join(OsStr::from_bytes(b"\xff\xfe")).is_file());
        assert!(!root.join("short").exists());
        let attributes = Command::new("getfattr")
            .args(["-d", "-m", "-"])
            .arg(root.join("capable"))
            .output();
        if let Ok(attributes) = attributes {
            assert!(attributes.stdout.is_empty(), "{attributes:?}");
        }
        fs::remove_dir_all(&root).unwrap();
        assert!(field.is_untouched());
    }
}

/// A reader that gives one byte.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

/// Whoever takes the wrong file learns which one it is.
#[test]
fn another_format_is_named() {
    for (start, says) in [
        (b"\xfd7zXZ\0".as_slice(), "xz: `xz -dc"),
        (b"\x28\xb5\x2f\xfd", "zstd: `zstd -dc"),
        (b"BZh91AY&SY", "bzip2: `bzip2 -dc"),
        (b"PK\x03\x04", "zip: unzip it"),
    ] {
        let field = Field::new();
        let mut bytes = start.to_vec();
        bytes.resize(4096, 7);
        let error = unpack(bytes.as_slice(), &field.target()).expect_err(says);
        assert!(format!("{error:#}").contains(says), "{error:#}");
        assert!(field.is_untouched(), "{says}");
    }
    // As the beginning of a name they mean nothing.
    let field = Field::new();
    let archive = Archive::default().file("BZh9").file("PK").end();
    unpack(archive.as_slice(), &field.target()).unwrap();
}

#[test]
fn rubbish_after_the_end_of_gzip_is_an_error() {
    let mut packed = gzip(&small());
    packed.extend(b"rubbish");
    let field = Field::new();
    unpack(packed.as_slice(), &field.target()).unwrap_err();
    assert!(field.is_untouched());
}

#[test]
fn what_is_in_the_targets_place_stays() {
    let field = Field::new();
    let archive = Archive::default().file("victim").end();
    let outside = Path::new(&field.outside()).to_path_buf();
    let error = unpack(archive.as_slice(), &outside).unwrap_err();
    assert_eq!(errno(&error), Errno::ENOTEMPTY);
    // A rename does not go through a symlink.
    fs::create_dir(field.0.path().join("empty")).unwrap();
    symlink("empty", field.target()).unwrap();
    let error = unpack(archive.as_slice(), &field.target()).unwrap_err();
    assert_eq!(errno(&error), Errno::ENOTDIR);
    fs::remove_file(field.target()).unwrap();
    fs::remove_dir(field.0.path().join("empty")).unwrap();
    assert!(field.is_untouched());
}

#[test]
fn nothing_is_left_of_a_deep_tree() {
    let archive = Archive::default()
        .file(&format!("{}f", "d/".repeat(100)))
        .dir(&format!("{}e", "d/".repeat(100)))
        .file("../bad")
        .end();
    let field = Field::new();
    let error = unpack(archive.as_slice(), &field.target()).unwrap_err();
    assert_eq!(errno(&error), Errno::EXDEV, "{error:#}");
    assert!(field.is_untouched());
}

/// The usual way to remove one holds as many open files.
#[test]
fn nor_of_one_deeper_than_files_may_be_open() {
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$@\"", "sh"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "nothing_is_left_of_a_deep_tree"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("1 passed"), "{printed}");
}

#[test]
fn nothing_is_left_on_a_full_disk() {
    let may = Command::new("unshare").args(["--mount", "true"]).output();
    if !may.unwrap().status.success() {
        return skip_even_in_ci("mounting a small disk needs root");
    }
    let content = vec![1; 2 << 20];
    let archive = Archive::default()
        .dir("d")
        .entry(EntryType::Regular, "d/x", "", &content)
        .end();
    let field = Field::new();
    let disk = field.0.path().join("outside");
    apart(CloneFlags::CLONE_NEWNS, || {
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let (tmpfs, size) = (Some("tmpfs"), Some("size=1m"));
        mount(tmpfs, &disk, tmpfs, MsFlags::empty(), size).unwrap();
        let error = unpack(archive.as_slice(), &disk.join("fs")).unwrap_err();
        assert_eq!(errno(&error), Errno::ENOSPC);
        assert_eq!(fs::read_dir(&disk).unwrap().count(), 0);
    });
    assert!(field.is_untouched());
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
    let many = (0..500).fold(Archive::default(), |a, n| {
        a.entry(regular, &n.to_string(), "", b"")
    });
    let deep = "d/".repeat(120);
    for (name, archive, limit) in [
        (
            "a large file",
            Archive::default().entry(regular, "x", "", &zeros),
            1 << 20,
        ),
        ("many files", many, 400 << 12),
        ("many directories", Archive::default().dir(&deep), 100 << 12),
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
        Archive::default().entry(regular, "x", "", &zeros[..5000]).end();
    let field = Field::new();
    let length = archive.len() as u64;
    unpack_at_most(length, archive.as_slice(), &field.target()).unwrap();
}

/// For root, too: a node for a disk in a folder that all can enter would give
/// them the disk.
#[test]
fn device_nodes_are_left_out() {
    let node =
        |kind, name: &str, archive: Archive| archive.entry(kind, name, "", b"");
    let archive = Archive::default().dir("dev").file("dev/file").file("old");
    let archive = node(EntryType::Char, "dev/null", archive);
    let archive = node(EntryType::Block, "dev/ram", archive);
    // The last one of a name counts.
    let archive = node(EntryType::Block, "old", archive).end();
    let field = Field::new();
    let summary = unpack(archive.as_slice(), &field.target()).unwrap();
    assert_eq!(
        summary.to_string(),
        "the archive: 2 files, 0.0 MB, 3 device nodes left out"
    );
    let names: Vec<_> = listing(&field.target()).into_keys().collect();
    let there = ["", ".container-root", "dev", "dev/file"];
    assert_eq!(names, there.map(PathBuf::from));

    let archive = node(EntryType::Char, "../outside/new", Archive::default());
    fs::remove_dir_all(field.target()).unwrap();
    let archive = archive.end();
    let error = unpack(archive.as_slice(), &field.target()).unwrap_err();
    assert_eq!(errno(&error), Errno::EXDEV);
    assert!(field.is_untouched());
}

/// The root of a user namespace may not give files to a user whom the
/// namespace does not know.
#[test]
fn root_of_a_user_namespace_unpacks_too() {
    if !is_root() {
        return skip_even_in_ci("a user has no capabilities to lose");
    }
    let output = Command::new("unshare")
        .arg("-rm")
        .arg(env::current_exe().unwrap())
        .args(["--exact", "a_good_archive_is_unpacked"])
        .arg("nothing_is_left_on_a_full_disk")
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
