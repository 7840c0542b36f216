//! Where the machine's memory is, and whatever else it needs on the host, for
//! as long as it runs.

use std::env;
use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::os::unix::fs::{DirBuilderExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};

/// Two folders, which are removed when it is dropped.
pub struct Room {
    /// What the machine is to do, what it says, its management socket.
    files: PathBuf,
    /// Its memory: a file without a name, which grows as it is used.
    memory: PathBuf,
}

impl Room {
    /// Finds a place for it, with space for that many bytes of memory. There
    /// is nothing yet: first somebody has to know what to remove.
    ///
    /// The machine executes what is in its memory: so a file system that is
    /// mounted noexec will not do. Containers often have a /dev/shm of 64 MiB.
    pub fn find(memory: u64) -> Result<Self> {
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
        // Nobody can have made what has this name.
        let number = RandomState::new().build_hasher().finish();
        let name = format!("workshop-vm-{number:016x}");
        Ok(Self {
            files: files.join(format!("{name}-files")),
            memory: memory.join(format!("{name}-memory")),
        })
    }

    /// Makes it.
    pub fn make(&self) -> Result<()> {
        for folder in self.folders() {
            DirBuilder::new()
                .mode(0o700)
                .create(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(())
    }

    /// Puts our own program into it, for the machine's kernel to start: its
    /// path may have letters that a kernel's command line cannot. Another
    /// user may be unable to reach it where it is, and gets all that is here.
    pub fn furnish(&self, owner: Option<(u32, u32)>) -> Result<()> {
        let program = env::current_exe()?;
        let init = init(self.path());
        let Some((uid, gid)) = owner else {
            return Ok(symlink(program, init)?);
        };
        fs::copy(program, init)?;
        for folder in self.folders() {
            for entry in fs::read_dir(folder)? {
                chown(entry?.path(), Some(uid), Some(gid))?;
            }
            chown(folder, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// The folder that the machine sees, too.
    pub fn path(&self) -> &Path {
        &self.files
    }

    /// The one for its memory.
    pub fn memory(&self) -> &Path {
        &self.memory
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

impl Drop for Room {
    fn drop(&mut self) {
        for folder in self.folders() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// The first place that will do.
fn find(
    will_do: impl Fn(&Path) -> Result<(), String>,
    what: &str,
) -> Result<PathBuf> {
    let mut refused = Vec::new();
    for place in places() {
        let fit = plain(&place).and_then(|()| {
            let all = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
            access(&place, all).map_err(|errno| errno.desc().to_owned())?;
            will_do(&place)
        });
        match fit {
            Ok(()) => return Ok(place),
            Err(why) => refused.push(format!("{}: {why}", place.display())),
        }
    }
    bail!(
        "{what} ({}): name another place with TMPDIR, or ask for less with \
         --memory",
        refused.join("; ")
    )
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

/// What the kernel starts.
pub fn init(room: &Path) -> PathBuf {
    room.join("init")
}
