//! Whatever an archive or a name says, nothing is written outside of a root.

#[path = "sandbox/listing.rs"]
mod listing;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use listing::listing;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;
use rootfs::{add_program, unpack_at_most};
use tar::{EntryType, Header};
use tempfile::TempDir;

/// In names it stands for the folder with the target and the victim.
const FIELD: &str = "FIELD";

/// In names it stands for a component that is too long by one byte.
const LONG: &str = "LONG";

const PARTS: &[&str] = &[
    "a",
    "b",
    "c",
    "a",
    "b",
    "c",
    ".",
    "..",
    "",
    "outside",
    "victim",
    "fs",
    FIELD,
    "proc/self/cwd",
    "\0",
    "\n",
    "\u{e9}",
    LONG,
];

/// A name, relative or absolute, made of what may do harm.
fn name() -> impl Strategy<Value = String> {
    let parts = vec(select(PARTS), 0..5);
    (any::<bool>(), parts).prop_map(|(is_absolute, parts)| {
        let start = if is_absolute { "/" } else { "" };
        format!("{start}{}", parts.join("/"))
    })
}

/// One that mostly stays inside, so that archives get past their first lines.
fn tame() -> impl Strategy<Value = String> {
    let parts = prop_oneof![
        4 => select(&["a", "b"][..]),
        1 => select(&["victim", "."][..]),
    ];
    vec(parts, 1..3).prop_map(|parts| parts.join("/"))
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![19 => tame(), 1 => name()]
}

/// Where a link leads.
fn aims() -> impl Strategy<Value = String> {
    let outside = select(&["../outside", "/FIELD/outside", "..", "/"][..]);
    prop_oneof![3 => outside.prop_map(String::from), 2 => tame(), 1 => name()]
}

type Member = (EntryType, String, String);

fn member() -> impl Strategy<Value = Member> {
    let kind = prop_oneof![
        4 => Just(EntryType::Regular),
        4 => Just(EntryType::Symlink),
        1 => Just(EntryType::Directory),
        1 => Just(EntryType::Link),
        1 => Just(EntryType::Fifo),
        1 => Just(EntryType::Char),
    ];
    (kind, names(), aims())
}

/// A name with what its placeholders stand for.
fn place(name: &str, field: &Path) -> String {
    let field = field.to_str().unwrap().trim_start_matches('/');
    name.replace(FIELD, field).replace(LONG, &"x".repeat(256))
}

fn archive(members: &[Member], field: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, name, to) in members {
        let (name, to) = (place(name, field), place(to, field));
        let content = match kind {
            EntryType::Regular => b"content".as_slice(),
            _ => b"",
        };
        for (kind, content) in [
            (EntryType::GNULongName, name.as_bytes()),
            (EntryType::GNULongLink, to.as_bytes()),
            (*kind, content),
        ] {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o6777);
            header.set_uid(4321);
            header.set_gid(1234);
            header.set_mtime(1);
            header.set_size(content.len() as u64);
            header.set_cksum();
            bytes.extend(header.as_bytes());
            bytes.extend(content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A folder with a victim beside where the root is going to be.
fn field() -> TempDir {
    let field = tempfile::tempdir().unwrap();
    fs::create_dir(field.path().join("outside")).unwrap();
    fs::write(field.path().join("outside/victim"), "mine").unwrap();
    field
}

/// A program without libraries, as short as one can be: a header, and an
/// empty one for a segment.
fn program() -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    for (at, value) in
        [(16, 2), (18, 62), (20, 1), (32, 64), (52, 64), (54, 56), (56, 1)]
    {
        bytes[at] = value;
    }
    bytes
}

fn config() -> Config {
    // What fails is shown, and becomes a test with a name.
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 100;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_archive_stays_inside(members in vec(member(), 1..12)) {
        let field = field();
        let before = listing(field.path());
        let target = field.path().join("fs");
        let archive = archive(&members, field.path());
        match unpack_at_most(1 << 20, archive.as_slice(), &target) {
            Ok(summary) => {
                let found = listing(&target);
                let files = found.values().filter(|(mode, _)| {
                    mode & 0o170_000 != 0o040_000
                });
                // With the mark; a name that comes twice counts twice.
                prop_assert!(files.count() as u64 <= summary.files + 1);
                for (name, (mode, content)) in &found {
                    prop_assert_eq!(mode & 0o6000, 0, "{:?}", name);
                    prop_assert!(content != b"mine", "{:?}", name);
                }
                // The last one of a name is there, and it is what it was.
                if let Some((kind, name, _)) = members.last() {
                    let name = place(name, field.path());
                    // That is how a long name ends.
                    let name = name.strip_suffix('\0').unwrap_or(&name);
                    let plain: PathBuf = Path::new(name)
                        .components()
                        .filter(|part| matches!(part, Component::Normal(_)))
                        .collect();
                    let there = target.join(plain).symlink_metadata();
                    let is_right = match kind {
                        EntryType::Regular => there.unwrap().is_file(),
                        EntryType::Symlink => there.unwrap().is_symlink(),
                        EntryType::Directory => there.unwrap().is_dir(),
                        EntryType::Char => there.is_err(),
                        _ => there.is_ok(),
                    };
                    prop_assert!(is_right, "{:?} {}", kind, name);
                }
                fs::remove_dir_all(&target).unwrap();
            }
            Err(error) => {
                let line = format!("{error:#}");
                prop_assert!(!line.contains(char::is_control), "{}", line);
            }
        }
        prop_assert_eq!(before, listing(field.path()));
    }

    /// In a root that somebody has filled with symlinks.
    #[test]
    fn a_program_stays_inside(
        links in vec((tame(), aims()), 0..6),
        at in prop_oneof![name(), tame()],
    ) {
        let field = field();
        let before = listing(field.path());
        let target = field.path().join("fs");
        fs::create_dir(&target).unwrap();
        let program = field.path().join("program");
        fs::write(&program, self::program()).unwrap();
        for (name, to) in &links {
            let to = place(to, field.path());
            let path = target.join(name);
            // One through another would be our own doing.
            let is_through = path
                .ancestors()
                .skip(1)
                .take_while(|above| *above != target)
                .any(Path::is_symlink);
            if is_through {
                continue;
            }
            let _ = fs::create_dir_all(path.parent().unwrap());
            let _ = symlink(OsStr::from_bytes(to.as_bytes()), path);
        }
        let at = place(&at, field.path());
        let added = add_program(&target, &program, Path::new(&at));
        fs::remove_file(&program).unwrap();
        let is_there = listing(&target)
            .values()
            .any(|(mode, _)| mode & 0o170_111 == 0o100_111);
        prop_assert_eq!(added.is_ok(), is_there, "{:?}", added);
        fs::remove_dir_all(&target).unwrap();
        prop_assert_eq!(before, listing(field.path()));
    }
}
