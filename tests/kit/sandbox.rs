//! The directory that a program under test is started in.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::{env, io};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::OWN_PROGRAM;
use crate::caller::Caller;

/// Where the probe stands in a root: a container may well mount something on
/// /tmp.
pub const PROBE: &str = "bin/suite-probe";

/// A folder that belongs to the caller, with a copy of the program, a root
/// file system in `fs`, and beside it a file that nobody in a container
/// should see.
#[derive(Debug)]
pub struct Sandbox {
    temporary: TempDir,
    caller: Caller,
    is_foreign: bool,
    /// The program under test.
    pub program: PathBuf,
}

impl Sandbox {
    /// Makes one for that caller, with everything but `fs`.
    pub fn without_fs(program: &Path, caller: Caller) -> Result<Self> {
        let name = program.file_name().context("the program has no name")?;
        let mut sandbox = Self::empty(program, caller)?;
        // In a folder of its own, so that PATH can name it.
        let copy = sandbox.dir().join("bin").join(name);
        fs::create_dir(sandbox.dir().join("bin"))?;
        fs::copy(program, &copy).with_context(|| {
            format!("cannot copy the program {}", program.display())
        })?;
        sandbox.program = copy;
        sandbox.give_away(sandbox.dir())?;
        Ok(sandbox)
    }

    fn empty(program: &Path, caller: Caller) -> Result<Self> {
        let temporary = TempDir::with_prefix_in("suite-", open_folder())?;
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(temporary.path(), open)?;
        let program = program.to_owned();
        let sandbox = Self { temporary, caller, is_foreign: false, program };
        fs::write(sandbox.secret(), sandbox.secret_text())?;
        Ok(sandbox)
    }

    /// Makes one for a program that we know nothing about: it is started where
    /// it stands, with what may stand beside it, and by whoever we are.
    pub fn foreign(program: &Path) -> Result<Self> {
        let sandbox = Self::empty(program, Caller::own())?;
        sandbox.build_fs()?;
        Ok(Self { is_foreign: true, ..sandbox })
    }

    /// Makes one for that caller, complete.
    pub fn new(program: &Path, caller: Caller) -> Result<Self> {
        let sandbox = Self::without_fs(program, caller)?;
        sandbox.build_fs()?;
        Ok(sandbox)
    }

    /// Builds `fs` from what this machine has, with the probe in it.
    pub fn build_fs(&self) -> Result<()> {
        let fs = self.fs();
        rootfs::build(&fs).context("cannot build fs")?;
        rootfs::add_program(&fs, Path::new(OWN_PROGRAM), Path::new(PROBE))
            .context("cannot put the probe into fs")?;
        // busybox has a shell only, and bash does job control its own way.
        let bash = Path::new("bin/bash");
        if !fs.join(bash).exists() && Path::new("/bin/bash").exists() {
            rootfs::add_program(&fs, Path::new("/bin/bash"), bash)
                .context("cannot put bash into fs")?;
        }
        self.give_away(&fs)
    }

    /// Whether it is for a program that we know nothing about.
    pub fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.temporary.path()
    }

    /// The root file system.
    pub fn fs(&self) -> PathBuf {
        self.dir().join("fs")
    }

    /// The probe, by the name that it has outside.
    pub fn probe(&self) -> PathBuf {
        self.fs().join(PROBE)
    }

    /// The file that a container must not show.
    pub fn secret(&self) -> PathBuf {
        self.dir().join("secret")
    }

    /// What stands in it.
    pub fn secret_text(&self) -> String {
        format!("a secret of the host in {}", self.dir().display())
    }

    /// Makes the caller the owner of a tree.
    pub fn give_away(&self, path: &Path) -> Result<()> {
        if self.caller.is_another() {
            let (uid, gid) = self.caller.ids();
            for_each(path, &mut |path, meta| {
                lchown(path, Some(uid), Some(gid))?;
                // A change of owner takes the set-user-ID bit away; nothing
                // here has one.
                debug_assert!(meta.mode() & 0o6000 == 0);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What stands in the folder: names, kinds, modes, owners, sizes.
    pub fn listing(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let _ = for_each(self.dir(), &mut |path, meta| {
            let name = path.strip_prefix(self.dir()).unwrap_or(path);
            // The size of a directory depends on the file system's mood.
            let size = if meta.is_dir() { 0 } else { meta.size() };
            lines.push(format!(
                "{} mode {:o} owner {} size {size}",
                name.display(),
                meta.mode(),
                meta.uid(),
            ));
            Ok(())
        });
        lines.sort();
        lines
    }
}

/// Calls `visit` for a tree, top first, without following links.
fn for_each(
    path: &Path,
    visit: &mut impl FnMut(&Path, &fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    let meta = path.symlink_metadata()?;
    visit(path, &meta)?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            for_each(&entry?.path(), visit)?;
        }
    }
    Ok(())
}

/// The temporary folder, or another where that one is closed to other users.
fn open_folder() -> PathBuf {
    let is_open = |dir: &PathBuf| {
        dir.ancestors().all(|dir| {
            dir.metadata().is_ok_and(|meta| meta.mode() & 0o001 != 0)
        })
    };
    [env::temp_dir(), "/tmp".into(), "/var/tmp".into()]
        .into_iter()
        .find(is_open)
        .unwrap_or_else(env::temp_dir)
}
