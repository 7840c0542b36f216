//! Copying programs together with what they need to start.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use crate::elf::{Elf, parse_cache};
use crate::tree::Tree;

/// glibc before 2.34 looks up user names with a plugin, which no program
/// names. Later ones may lack it.
const GLIBC: &str = "libc.so.6";
const PLUGIN: &str = "libnss_files.so.2";

/// Where loaders look at last, beside their own directory.
const DIRECTORIES: &[&str] =
    &["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"];

/// Copies ELF programs of this machine into a root, with their loader and
/// their shared libraries. Nothing is run to find them, as ldd(1) would.
pub(crate) struct Programs<'t> {
    tree: &'t mut Tree,
    /// Libraries that ld.so's cache names.
    cache: Vec<PathBuf>,
    /// What has been read so far; None is no ELF file.
    read: HashMap<PathBuf, Option<Rc<Elf>>>,
}

/// A file of this machine, and where it goes in the root.
type Copy = (PathBuf, PathBuf);

/// What a program needs to start.
#[derive(Default)]
pub(crate) struct Needed {
    /// Its loader and its libraries.
    copies: Vec<Copy>,
    /// The name under which the program knows its loader, and where that
    /// leads.
    loader: Option<(PathBuf, PathBuf)>,
}

impl<'t> Programs<'t> {
    pub(crate) fn new(tree: &'t mut Tree) -> Programs<'t> {
        let cache = fs::read("/etc/ld.so.cache").unwrap_or_default();
        Programs { tree, cache: parse_cache(&cache), read: HashMap::new() }
    }

    pub(crate) fn tree(&mut self) -> &mut Tree {
        self.tree
    }

    pub(crate) fn add(&mut self, program: &Path, at: &Path) -> Result<()> {
        let needed = self.needed(program)?;
        Ok(self.copy(program, at, needed)?)
    }

    pub(crate) fn copy(
        &mut self,
        program: &Path,
        at: &Path,
        needed: Needed,
    ) -> io::Result<()> {
        for (from, to) in needed.copies {
            if !self.tree.has(&to) {
                self.tree.file(&to, 0o755, &mut File::open(from)?)?;
            }
        }
        if let Some((name, loader)) = needed.loader {
            if !self.tree.has(&name) {
                self.tree.symlink(&name, loader.as_os_str())?;
            }
        }
        // The mode is ours: mount is setuid here, and must not be so in a
        // folder of somebody's.
        self.tree.file(at, 0o755, &mut File::open(program)?)?;
        Ok(())
    }

    /// The loader and the libraries of a program, found as ld.so(8) does.
    ///
    /// A loader always searches the directory that it is in itself, without
    /// a cache and on every distribution. So a library goes there, unless
    /// the program says where it wants it.
    pub(crate) fn needed(&mut self, program: &Path) -> Result<Needed> {
        let main = self.read(program)?.ok_or(Errno::ENOEXEC)?;
        let Some(named) = &main.loader else {
            return Ok(Needed::default());
        };
        let loader = named
            .canonicalize()
            .with_context(|| format!("cannot find the loader {named:?}"))?;
        let home = loader.parent().unwrap_or(Path::new("/"));

        let mut copies = vec![(loader.clone(), relative(&loader).into())];
        let loader_name = (&loader != named).then(|| relative(named).into());
        let mut seen = HashSet::new();
        let mut queue =
            VecDeque::from([(program.to_path_buf(), Rc::clone(&main))]);
        while let Some((path, object)) = queue.pop_front() {
            let named = object.needed.iter().map(OsString::as_os_str);
            let has_plugin = object.needed.iter().any(|name| name == GLIBC);
            let plugin = has_plugin.then_some(OsStr::new(PLUGIN));
            for name in named.chain(plugin) {
                if !seen.insert(name.to_owned()) {
                    continue;
                }
                // For the program's own list, see `rpath`.
                let rpath = match object.runpath.is_empty() {
                    true => main.rpath.as_slice(),
                    false => &[],
                };
                let candidates = listed(&object.runpath, &path, name, home)
                    .chain(listed(&object.rpath, &path, name, home))
                    .chain(listed(rpath, program, name, home))
                    .chain(self.installed(name, home))
                    .collect::<Vec<_>>();
                let found = candidates.into_iter().find_map(|(from, to)| {
                    let library = self.read(&from).ok()??;
                    library.fits(&main).then_some((from, to, library))
                });
                match found {
                    // It is in the process from the start.
                    Some((from, ..)) if is_same(&from, &loader) => {}
                    Some((from, to, library)) => {
                        copies.push((from.clone(), to));
                        queue.push_back((from, library));
                    }
                    None if name == PLUGIN => {}
                    None => {
                        return Err(Errno::ENOENT).with_context(|| {
                            format!("cannot find {name:?} for {program:?}")
                        });
                    }
                }
            }
        }
        let loader = loader_name.map(|name| (name, loader));
        Ok(Needed { copies, loader })
    }

    /// Where this machine may have a library that is installed for all.
    fn installed(&self, name: &OsStr, home: &Path) -> Vec<Copy> {
        // A name with a slash is a path.
        if Path::new(name).is_absolute() {
            return vec![(name.into(), relative(Path::new(name)).into())];
        }
        // A library may have stayed in /lib/TRIPLET when the loader moved to
        // /usr/lib/TRIPLET, or the other way around.
        let twin = match home.strip_prefix("/usr") {
            Ok(rest) => Path::new("/").join(rest),
            Err(_) => Path::new("/usr").join(relative(home)),
        };
        self.cache
            .iter()
            .filter(|path| path.file_name() == Some(name))
            .cloned()
            .chain([home.join(name), twin.join(name)])
            .chain(DIRECTORIES.iter().map(|d| Path::new(d).join(name)))
            .map(|from| (from, relative(&home.join(name)).into()))
            .collect()
    }

    fn read(&mut self, path: &Path) -> io::Result<Option<Rc<Elf>>> {
        if let Some(known) = self.read.get(path) {
            return Ok(known.clone());
        }
        let elf = Elf::parse(&fs::read(path)?).map(Rc::new);
        self.read.insert(path.to_path_buf(), elf.clone());
        Ok(elf)
    }
}

/// Where a library may be according to the DT_RUNPATH or DT_RPATH of
/// `object`. In the root it goes to that same place, except for one that was
/// found by `$ORIGIN`: the program itself does not keep its place.
fn listed(
    directories: &[OsString],
    object: &Path,
    name: &OsStr,
    home: &Path,
) -> impl Iterator<Item = Copy> {
    directories.iter().filter_map(move |directory| {
        let text = directory.to_str()?;
        let rest = ["$ORIGIN", "${ORIGIN}"]
            .iter()
            .find_map(|variable| text.strip_prefix(variable));
        if let Some(rest) = rest {
            let origin = object.canonicalize().ok()?;
            let directory = origin.parent()?.join(rest.trim_start_matches('/'));
            return Some((
                directory.join(name),
                relative(&home.join(name)).into(),
            ));
        }
        // $LIB and $PLATFORM are as good as unused.
        let path = Path::new(text).join(name);
        let is_plain = path.is_absolute() && !text.contains('$');
        let to = relative(&path).into();
        is_plain.then_some((path, to))
    })
}

fn is_same(path: &Path, loader: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| path == loader)
}

/// A path of this machine as one in the root.
pub(crate) fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
