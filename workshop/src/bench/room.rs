//! The folder with all that is measured: a root, programs, bundles.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{AccessFlags, access, getegid, geteuid};
use serde_json::{Value, json};
use suite::Caller;
use tempfile::TempDir;

use super::guarded;
use crate::check::Watch;
use crate::root;
use crate::step::Step;
use crate::terminal::{FAINT, note, styled};

/// What is measured with a libc of its own in the program, too.
pub const STATIC: [&str; 2] = ["step06-pivot-root", "step07-cgroups"];

/// The target whose programs have it.
pub const MUSL: &str = concat!("x86_64", "-unknown-linux-musl");

/// Such a folder.
pub struct Room {
    path: PathBuf,
    _folder: Option<TempDir>,
}

/// A program in PATH, or where ordinary users do not look.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path);
    let folders = folders.chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok())
}

impl Room {
    /// One that another process has furnished.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), _folder: None }
    }

    /// Compiles everybody, and makes the root and the bundles. What cannot be
    /// compiled here is not there then.
    pub fn furnish(watch: &Watch) -> Result<Self> {
        let course = root()?;
        let folder = TempDir::with_prefix("workshop-bench-")?;
        let path = folder.path().to_owned();
        let room = Self { path, _folder: Some(folder) };
        fs::set_permissions(&room.path, Permissions::from_mode(0o755))?;
        for command in room.compilers(&course) {
            let Compiler { what, mut command, made, needed } = command;
            note(styled(FAINT, format!("compiling {what}")));
            command.stdin(Stdio::null()).stdout(Stdio::null());
            let status = command.spawn().map_err(anyhow::Error::from);
            let status = status.and_then(|mut child| {
                watch.guard(Some(guarded(&child)?));
                let status = child.wait()?;
                watch.guard(None);
                Ok(status)
            });
            ensure!(!watch.is_over(), "interrupted");
            if !status.is_ok_and(|status| status.success()) {
                ensure!(!needed, "cannot compile {what}");
                note(format_args!("cannot compile {what}"));
                continue;
            }
            for (from, to) in made {
                fs::copy(&from, room.path.join(to))
                    .with_context(|| format!("cannot copy {what}"))?;
            }
        }
        rootfs::build(&room.path.join("fs"))?;
        room.write_bundles()?;
        Ok(room)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn compilers(&self, course: &Path) -> Vec<Compiler> {
        let here = course.join("workshop/bench");
        let cargo = || {
            let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
            let mut command = Command::new(cargo);
            // What the workshop itself was started with is not for these.
            command.env_remove("CARGO_TARGET_DIR").current_dir(course);
            command
        };
        let target = course.join("target");
        let mut steps = cargo();
        steps.args(["build", "--quiet", "--release"]);
        let mut made = vec![];
        for step in Step::all() {
            let name = step.package();
            steps.args(["--package", name]);
            made.push((target.join("release").join(name), name.to_owned()));
        }
        let mut compilers = vec![Compiler {
            what: "the steps, in the release profile".to_owned(),
            command: steps,
            made,
            needed: true,
        }];
        if has_musl() {
            let mut musl = cargo();
            musl.args(["build", "--quiet", "--release", "--target", MUSL]);
            let mut made = vec![];
            for name in STATIC {
                musl.args(["--package", name]);
                let from = target.join(MUSL).join("release").join(name);
                made.push((from, format!("{name}.static")));
            }
            // Nothing but a few lines of a dependency's is C.
            let compiler = find("musl-gcc").unwrap_or("cc".into());
            musl.env("CC_x86_64_unknown_linux_musl", compiler);
            compilers.push(Compiler {
                what: "two of them statically, with musl".to_owned(),
                command: musl,
                made,
                needed: false,
            });
        }
        let mut floor = Command::new("sh");
        floor.args(["-c", COMPILE_FLOOR, "sh", "-o"]);
        floor.arg(self.path.join("floor")).arg(here.join("floor.c"));
        compilers.push(Compiler {
            what: "the floor, in C".to_owned(),
            command: floor,
            made: vec![],
            needed: true,
        });
        if let Some(go) = find("go") {
            let mut command = Command::new(go);
            command.args(["build", "-o"]).arg(self.path.join("original"));
            command.arg(here.join("original.go"));
            compilers.push(Compiler {
                what: "the original, in Go".to_owned(),
                command,
                made: vec![],
                needed: false,
            });
        }
        compilers
    }

    /// Bundles for what a container does, see the runtime specification.
    fn write_bundles(&self) -> Result<()> {
        let template = root()?.join("workshop/bench/config.json");
        let template = fs::read_to_string(&template)
            .with_context(|| format!("cannot read {}", template.display()))?;
        let mut config: Value = serde_json::from_str(&template)?;
        config["root"]["path"] = json!(self.path.join("fs"));
        if Caller::own() == Caller::User {
            let map = |id: u32| {
                json!([{
                    "containerID": 0, "hostID": id, "size": 1
                }])
            };
            config["linux"]["uidMappings"] = map(geteuid().as_raw());
            config["linux"]["gidMappings"] = map(getegid().as_raw());
            if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
                all.push(json!({ "type": "user" }));
            }
        }
        for (name, command) in [("true", TRUE), ("wait", WAIT)] {
            config["process"]["args"] = json!(command);
            let bundle = self.path.join(name);
            fs::create_dir(&bundle)?;
            fs::write(bundle.join("config.json"), config.to_string())?;
        }
        Ok(())
    }
}

/// What is run to see how long a container takes.
pub const TRUE: &[&str] = &["/bin/true"];

/// What is run to see what a container takes up: it says that it is there, and
/// ends with its stdin.
pub const WAIT: &[&str] = &["/bin/sh", "-c", "echo; read line"];

/// Not every distribution has a static libc at hand.
const COMPILE_FLOOR: &str = "cc -O2 -static \"$@\" 2>/dev/null && exit; \
    echo 'no static libc here: the floor has to load one, too' >&2; \
    exec cc -O2 \"$@\"";

struct Compiler {
    what: String,
    command: Command,
    /// From where to take a program, and what to call it.
    made: Vec<(PathBuf, String)>,
    needed: bool,
}

/// Whether Rust's part of that target is installed.
fn has_musl() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or("rustc".into());
    let asked = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", MUSL])
        .output();
    asked.is_ok_and(|answer| {
        let folder = String::from_utf8_lossy(&answer.stdout);
        Path::new(folder.trim()).is_dir()
    })
}
