//! Where the machine's memory is, and whatever else it needs on the host, for
//! as long as it runs.

use std::env;
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::sys::statvfs::{FsFlags, statvfs};
use tempfile::TempDir;

/// Two folders, which are removed when it is dropped.
pub struct Room {
    /// What the machine is to do, what it says, its management socket.
    files: TempDir,
    /// Its memory: a file without a name, which grows as it is used.
    memory: TempDir,
}

impl Room {
    /// Makes one for that many bytes of memory, for that user.
    ///
    /// The machine executes what is in its memory: so a file system that is
    /// mounted noexec will not do. Containers often have a /dev/shm of 64 MiB.
    pub fn make(memory: u64, owner: Option<(u32, u32)>) -> Result<Self> {
        // On /dev, /proc and /sys the machine mounts its own.
        let seen = |place: &Path| {
            let hidden = ["/dev", "/proc", "/sys"];
            match hidden.iter().any(|hidden| place.starts_with(hidden)) {
                true => Err("the machine has its own".to_owned()),
                false => Ok(()),
            }
        };
        let files = find(seen, "no place for the machine's files")?;
        let what = format!(
            "no place for the machine's memory of {} MiB",
            memory >> 20
        );
        let memory = find(|place| space(place, memory), &what)?;
        let room = Self { files, memory };
        furnish(&room, owner).with_context(|| {
            format!("cannot furnish {}", room.path().display())
        })?;
        Ok(room)
    }

    /// The folder that the machine sees, too.
    pub fn path(&self) -> &Path {
        self.files.path()
    }

    /// The one for its memory.
    pub fn memory(&self) -> &Path {
        self.memory.path()
    }

    /// What the kernel says.
    pub fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// All of it.
    pub fn folders(&self) -> [&Path; 2] {
        [self.path(), self.memory()]
    }
}

/// Makes a folder in the first place that will do.
fn find(
    will_do: impl Fn(&Path) -> Result<(), String>,
    what: &str,
) -> Result<TempDir> {
    let mut refused = Vec::new();
    for place in places() {
        let folder = plain(&place).and_then(|()| will_do(&place));
        let folder = folder.and_then(|()| {
            let mut builder = tempfile::Builder::new();
            let made = builder.prefix("workshop-vm-").tempdir_in(&place);
            made.map_err(|error| error.kind().to_string())
        });
        match folder {
            Ok(folder) => return Ok(folder),
            Err(why) => refused.push(format!("{}: {why}", place.display())),
        }
    }
    bail!("{what} ({})", refused.join("; "))
}

/// Where to look, in this order.
fn places() -> Vec<PathBuf> {
    let chosen = env::var_os("TMPDIR").filter(|place| !place.is_empty());
    let mut places: Vec<_> = chosen.map(PathBuf::from).into_iter().collect();
    places.extend(["/dev/shm", "/tmp", "/var/tmp"].map(Into::into));
    let program = env::current_exe().ok();
    places.extend(program.and_then(|path| Some(path.parent()?.to_owned())));
    places
}

/// It becomes part of the kernel's command line, which has no quotes.
fn plain(place: &Path) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,".contains(c);
    match place.to_str() {
        Some(path) if path.starts_with('/') && path.chars().all(plain) => {
            Ok(())
        }
        _ => Err("no plain name".to_owned()),
    }
}

/// Whether the memory can be there; if not, why.
fn space(place: &Path, memory: u64) -> Result<(), String> {
    let info = statvfs(place).map_err(|errno| errno.desc().to_owned())?;
    if info.flags().contains(FsFlags::ST_NOEXEC) {
        return Err("mounted noexec".to_owned());
    }
    let free = info.blocks_available() as u64 * info.fragment_size() as u64;
    if free < memory {
        return Err(format!("{} MiB free", free >> 20));
    }
    Ok(())
}

/// Puts our own program into the room, for the machine's kernel to start: its
/// path may have letters that a kernel's command line cannot. Another user
/// may be unable to reach it where it is.
fn furnish(room: &Room, owner: Option<(u32, u32)>) -> Result<()> {
    let program = env::current_exe()?;
    let init = init(room.path());
    match owner {
        None => symlink(program, init)?,
        Some((uid, gid)) => {
            fs::copy(program, init)?;
            for folder in room.folders() {
                chown(folder, Some(uid), Some(gid))?;
            }
        }
    }
    Ok(())
}

/// What the kernel starts.
pub fn init(room: &Path) -> PathBuf {
    room.join("init")
}
