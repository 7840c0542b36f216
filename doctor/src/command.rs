//! Why a command cannot be executed, see execve(2).

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use elf::endian::AnyEndian;
use elf::{ElfStream, abi, to_str};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess};

use crate::cause::{Cause, quoted};
use crate::directory;
use crate::mounts;

/// Why this command failed; `inside` is the PATH of the root that it was
/// looked up in, unless it was our own.
pub fn failed(
    command: &OsStr,
    inside: Option<&OsStr>,
    errno: Errno,
) -> Option<Cause> {
    let path = match inside {
        Some(path) => path.to_owned(),
        None => env::var_os("PATH").unwrap_or_default(),
    };
    let named = command.as_bytes().contains(&b'/');
    let places: Vec<PathBuf> = match named {
        true => vec![command.into()],
        false => env::split_paths(&path).map(|dir| dir.join(command)).collect(),
    };
    let there = |file: &&PathBuf| fs::symlink_metadata(file).is_ok();
    let mut found = places.iter().filter(there);
    match errno {
        Errno::ENOENT => match found.next() {
            Some(file) => missing_piece(file, 0),
            None if named => None,
            None => Some(not_found(command, &path, inside.is_some())),
        },
        Errno::EACCES => found
            .find_map(|file| not_permitted(file, 0))
            .or_else(|| closed(&places, named, command)),
        Errno::ENOEXEC => found.find_map(|file| not_a_program(file)),
        _ => None,
    }
}

fn not_found(command: &OsStr, path: &OsStr, inside: bool) -> Cause {
    let (command, path) = (quoted(command), quoted(path));
    match inside {
        true => Cause::CommandNotInRoot { command, path },
        false => Cause::CommandNotFound { command, path },
    }
}

/// A program needs its loader and a script its interpreter, which is in turn
/// a program or a script: the kernel follows four of them.
const CHAIN: u8 = 4;

/// What this file needs and does not find.
fn missing_piece(file: &Path, links: u8) -> Option<Cause> {
    if !file.exists() {
        let target = quoted(fs::read_link(file).ok()?);
        return Some(Cause::DanglingLink { file: quoted(file), target });
    }
    let missing = |path: &Path| fs::symlink_metadata(path).is_err();
    if let Some(interpreter) = interpreter(file) {
        if missing(&interpreter) {
            return Some(Cause::MissingInterpreter {
                file: quoted(file),
                interpreter: quoted(interpreter),
            });
        }
        return (links < CHAIN)
            .then(|| missing_piece(&interpreter, links + 1))?;
    }
    let loader = loader(file)?;
    if missing(&loader) {
        let (file, loader) = (quoted(file), quoted(loader));
        return Some(Cause::MissingLoader { file, loader });
    }
    let target = fs::read_link(&loader).ok()?;
    (!loader.exists()).then(|| Cause::DanglingLink {
        file: quoted(loader),
        target: quoted(target),
    })
}

/// Why we may not execute this file, or its interpreter.
fn not_permitted(file: &Path, links: u8) -> Option<Cause> {
    let closed = directory::closed_to_us(file.parent()?);
    if closed.is_some() {
        return closed;
    }
    if file.is_dir() {
        return Some(Cause::IsDirectory { file: quoted(file) });
    }
    if eaccess(file, AccessFlags::X_OK) == Err(Errno::EACCES) {
        let mount = mounts::holding(file);
        let noexec =
            mount.filter(|it| it.options.split(',').any(|it| it == "noexec"));
        return Some(match noexec {
            Some(mount) => Cause::NoexecMount {
                file: quoted(file),
                point: quoted(mount.point),
            },
            None => Cause::NotExecutable { file: quoted(file) },
        });
    }
    let interpreter = interpreter(file).or_else(|| loader(file))?;
    (links < CHAIN).then(|| not_permitted(&interpreter, links + 1))?
}

/// Which directory kept us from looking.
fn closed(places: &[PathBuf], named: bool, command: &OsStr) -> Option<Cause> {
    let mut directories = places.iter().filter_map(|file| file.parent());
    if named {
        return directories.find_map(directory::closed_to_us);
    }
    let directory = quoted(directories.find_map(directory::closed)?);
    Some(Cause::PathClosed { directory, command: quoted(command) })
}

/// What is wrong with the contents of this file.
fn not_a_program(file: &Path) -> Option<Cause> {
    let start = start(file)?;
    if !start.starts_with(&abi::ELFMAGIC) {
        let script = start.starts_with(b"#!");
        return (!script)
            .then(|| Cause::NoInterpreterLine { file: quoted(file) });
    }
    let theirs = parse(file)?.ehdr.e_machine;
    let ours = machine()?;
    let name = |machine| {
        to_str::e_machine_to_human_str(machine)
            .map_or_else(|| to_str::e_machine_to_string(machine), str::to_owned)
    };
    (theirs != ours).then(|| Cause::ForeignArchitecture {
        file: quoted(file),
        theirs: name(theirs),
        ours: name(ours),
    })
}

/// As much of the file as the kernel looks at.
fn start(file: &Path) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    // Opening a named pipe would wait for its other end.
    fs::metadata(file).ok().filter(|it| it.is_file())?;
    File::open(file).ok()?.take(256).read_to_end(&mut start).ok()?;
    Some(start)
}

/// The program that the `#!` line names.
fn interpreter(file: &Path) -> Option<PathBuf> {
    let start = start(file)?;
    let line =
        start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let name = line.split(blank).find(|word| !word.is_empty())?;
    Some(OsString::from_vec(name.to_vec()).into())
}

/// The loader that an ELF program names, see ld.so(8).
fn loader(file: &Path) -> Option<PathBuf> {
    let mut elf = parse(file)?;
    let mut segments = elf.segments().iter();
    let segment = *segments.find(|it| it.p_type == abi::PT_INTERP)?;
    let name = elf.segment_data(&segment).ok()?;
    let name = name.split(|byte| *byte == 0).next()?.to_vec();
    Some(OsString::from_vec(name).into())
}

fn parse(file: &Path) -> Option<ElfStream<AnyEndian, File>> {
    start(file)?.starts_with(&abi::ELFMAGIC).then_some(())?;
    ElfStream::open_stream(File::open(file).ok()?).ok()
}

/// The machine that this was compiled for, by its number in ELF.
fn machine() -> Option<u16> {
    Some(match env::consts::ARCH {
        "x86_64" => abi::EM_X86_64,
        "x86" => abi::EM_386,
        "aarch64" => abi::EM_AARCH64,
        "arm" => abi::EM_ARM,
        "riscv64" => abi::EM_RISCV,
        "powerpc64" => abi::EM_PPC64,
        "s390x" => abi::EM_S390,
        _ => return None,
    })
}
