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
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, eaccess};

use crate::cause::{Cause, quoted};
use crate::directory;

/// A command as it was looked up.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// Its name, or its path.
    pub command: &'a OsStr,
    /// What our root is called outside, and the PATH inside, when both are
    /// not our caller's.
    pub inside: Option<(&'a Path, &'a OsStr)>,
}

/// A program needs its loader and a script its interpreter, which is in turn
/// a program or a script: the kernel follows four of them.
const CHAIN: u8 = 4;

impl Lookup<'_> {
    /// Why the command cannot be executed.
    pub fn failed(self, errno: Errno) -> Option<Cause> {
        let named = self.command.as_bytes().contains(&b'/');
        let places: Vec<PathBuf> = match named {
            true => vec![self.command.into()],
            false => env::split_paths(&self.path())
                .map(|directory| directory.join(self.command))
                .collect(),
        };
        let there = |file: &&PathBuf| fs::symlink_metadata(file).is_ok();
        let mut found = places.iter().filter(there);
        match errno {
            Errno::ENOENT => match found.next() {
                Some(file) => self.missing_piece(file, 0),
                None if named => self.dangling(&places[0]),
                None => Some(self.not_found()),
            },
            Errno::EACCES => found
                .find_map(|file| self.not_permitted(file, 0))
                .or_else(|| self.closed(&places, named)),
            Errno::ENOEXEC => found.find_map(|file| self.not_a_program(file)),
            _ => None,
        }
    }

    fn path(self) -> OsString {
        match self.inside {
            Some((_, path)) => path.to_owned(),
            None => env::var_os("PATH").unwrap_or_default(),
        }
    }

    /// A file as it is called where it can be mended: outside.
    fn shown(self, file: &Path) -> String {
        match self.inside {
            Some((root, _)) => {
                quoted(root.join(file.strip_prefix("/").unwrap_or(file)))
            }
            None => quoted(file),
        }
    }

    fn not_found(self) -> Cause {
        let (command, path) = (quoted(self.command), quoted(self.path()));
        match self.inside {
            Some((root, _)) => {
                let bin = quoted(root.join("bin"));
                Cause::CommandNotInRoot { command, path, bin }
            }
            None => Cause::CommandNotFound { command, path },
        }
    }

    /// What this file needs and does not find.
    fn missing_piece(self, file: &Path, links: u8) -> Option<Cause> {
        if !file.exists() {
            return self.dangling(file);
        }
        let missing = |path: &Path| fs::symlink_metadata(path).is_err();
        if let Some(interpreter) = interpreter(file) {
            if missing(&interpreter) {
                let interpreter = self.shown(&interpreter);
                let file = self.shown(file);
                return Some(Cause::MissingInterpreter { file, interpreter });
            }
            return (links < CHAIN)
                .then(|| self.missing_piece(&interpreter, links + 1))?;
        }
        let loader = loader(file)?;
        if missing(&loader) {
            let (file, loader) = (self.shown(file), self.shown(&loader));
            return Some(Cause::MissingLoader { file, loader });
        }
        (!loader.exists()).then(|| self.dangling(&loader))?
    }

    fn dangling(self, file: &Path) -> Option<Cause> {
        // A target that is absolute is so inside the root.
        let (link, target) = directory::dangling(file)?;
        let (file, target) = (self.shown(&link), self.shown(&target));
        Some(Cause::DanglingLink { file, target })
    }

    /// Why we may not execute this file, or its interpreter.
    fn not_permitted(self, file: &Path, links: u8) -> Option<Cause> {
        let shown = self.shown(file);
        if directory::closed(file.parent()?).is_some() {
            return self.closed(&[file.to_owned()], true);
        }
        if file.is_dir() {
            return Some(Cause::IsDirectory { file: shown });
        }
        if eaccess(file, AccessFlags::X_OK) == Err(Errno::EACCES) {
            let flags = statvfs(file).ok()?.flags();
            return Some(match flags.contains(FsFlags::ST_NOEXEC) {
                true => Cause::NoexecMount { file: shown },
                false => Cause::NotExecutable { file: shown },
            });
        }
        let interpreter = interpreter(file).or_else(|| loader(file))?;
        (links < CHAIN).then(|| self.not_permitted(&interpreter, links + 1))?
    }

    /// Which directory kept us from looking.
    fn closed(self, places: &[PathBuf], named: bool) -> Option<Cause> {
        let mut directories = places.iter().filter_map(|file| file.parent());
        let directory = directories.find_map(directory::closed)?;
        let (path, command) = (self.shown(&directory), quoted(self.command));
        Some(match named {
            true => Cause::DirectoryClosed { path, uid: directory::us() },
            false => Cause::PathClosed { directory: path, command },
        })
    }

    /// What is wrong with the contents of this file.
    fn not_a_program(self, file: &Path) -> Option<Cause> {
        let start = start(file)?;
        if !start.starts_with(&abi::ELFMAGIC) {
            let script = start.starts_with(b"#!");
            return (!script)
                .then(|| Cause::NoInterpreterLine { file: self.shown(file) });
        }
        let theirs = parse(file)?.ehdr.e_machine;
        let ours = machine()?;
        let name = |machine| {
            to_str::e_machine_to_human_str(machine).map_or_else(
                || to_str::e_machine_to_string(machine),
                str::to_owned,
            )
        };
        (theirs != ours).then(|| Cause::ForeignArchitecture {
            file: self.shown(file),
            theirs: name(theirs),
            ours: name(ours),
        })
    }
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
