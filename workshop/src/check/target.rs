//! The program that is checked.

use std::env;
use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::{AccessFlags, access};
use serde_json::Value;
use suite::Caller;

use crate::mine::{self, Mine};
use crate::step::Step;
use crate::terminal::say;

/// The participant's crate, or any program.
pub enum Target {
    /// It is built first.
    Mine(Mine),
    /// It is started where it stands.
    Program {
        /// As it was typed.
        typed: PathBuf,
        /// Wherever we are.
        path: PathBuf,
    },
}

impl Target {
    /// The program that was named, or mine/.
    pub fn choose(bin: Option<&Path>) -> Result<Self> {
        Ok(match bin {
            Some(typed) => Self::Program {
                typed: typed.to_owned(),
                path: env::current_dir()?.join(typed),
            },
            None => Self::Mine(Mine::find(&crate::root()?)?),
        })
    }

    /// The participant's crate, if that is it.
    pub fn mine(&self) -> Option<&Mine> {
        match self {
            Self::Mine(mine) => Some(mine),
            Self::Program { .. } => None,
        }
    }

    /// The step that it is meant to be.
    pub fn step(&self) -> Result<Step> {
        match self {
            Self::Mine(mine) => mine.task(),
            Self::Program { .. } => {
                Ok(Step::all().last().unwrap_or(Step::FIRST))
            }
        }
    }

    /// The program, built where that is due.
    pub fn program(&self) -> Result<PathBuf> {
        let path = match self {
            Self::Mine(mine) => build(mine)?,
            Self::Program { path, .. } => path.clone(),
        };
        let name = match self {
            Self::Mine(_) => path.display(),
            Self::Program { typed, .. } => typed.display(),
        };
        let meta = path.metadata();
        let meta = meta.with_context(|| format!("cannot check {name}"))?;
        if !meta.is_file() {
            bail!("{name} is no program");
        }
        if access(&path, AccessFlags::X_OK).is_err() {
            bail!("{name} may not be executed: `chmod +x {name}` lets it");
        }
        path.canonicalize().with_context(|| format!("cannot find {name}"))
    }

    /// What is watched, for the reader.
    pub fn watched(&self) -> String {
        match self {
            Self::Mine(_) => format!("{}/src", mine::NAME),
            Self::Program { typed, .. } => typed.display().to_string(),
        }
    }

    /// Something that is not the same when the program has changed.
    pub fn state(&self) -> Vec<(PathBuf, i64, i64, u64)> {
        let mut state = Vec::new();
        match self {
            Self::Mine(mine) => {
                add_state(&mine.source(), &mut state);
                add_state(&mine.manifest(), &mut state);
            }
            Self::Program { path, .. } => add_state(path, &mut state),
        }
        state.sort();
        state
    }

    /// After a check in which something leaks.
    pub fn say_what_helps(&self, runs: bool) {
        if !runs && Caller::own() == Caller::User {
            say("it may need root, or something that is forbidden here:");
            say("`cargo workshop doctor` says what this machine allows");
        }
        say(match self {
            Self::Mine(_) => "next: `cargo workshop hint` helps",
            Self::Program { .. } => "next: the sections of the book above",
        });
    }

    /// After a check in which nothing leaks.
    pub fn say_on_to(&self, next: Step) {
        let number = next.number();
        match self {
            Self::Mine(_) => {
                say(format_args!("next: `cargo workshop check {number:02}`"));
            }
            Self::Program { typed, .. } => say(format_args!(
                "next: `cargo workshop check {number:02} --bin {}`",
                typed.display()
            )),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Mine(_) => write!(f, "{}/", mine::NAME),
            Self::Program { typed, .. } => typed.display().fmt(f),
        }
    }
}

/// A file, or all that is in a folder, but for what editors keep beside it:
/// vim writes its swap file while nothing has been saved.
fn add_state(path: &Path, state: &mut Vec<(PathBuf, i64, i64, u64)>) {
    let Ok(meta) = path.metadata() else { return };
    if meta.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if !name.starts_with(b".") && !name.ends_with(b"~") {
                add_state(&entry.path(), state);
            }
        }
    } else {
        state.push(file_state(path, &meta));
    }
}

fn file_state(path: &Path, meta: &Metadata) -> (PathBuf, i64, i64, u64) {
    (path.to_owned(), meta.mtime(), meta.mtime_nsec(), meta.ino())
}

/// Builds it, and says where its program is.
fn build(mine: &Mine) -> Result<PathBuf> {
    let manifest = mine.manifest();
    let folder = manifest.parent().context("mine/ is nowhere")?;
    let output =
        Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet"])
            .arg("--message-format=json-render-diagnostics")
            .arg("--manifest-path")
            .arg(&manifest)
            // Its own .cargo/config.toml counts.
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("mine/ cannot be compiled: see cargo's words above");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            Some(PathBuf::from(message.get("executable")?.as_str()?))
        })
        .next_back()
        .context("mine/ has no program: it needs a src/main.rs")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::add_state;

    #[test]
    fn what_editors_keep_is_no_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name, text| fs::write(folder.path().join(name), text);
        let state = || {
            let mut state = Vec::new();
            add_state(folder.path(), &mut state);
            state
        };
        write("main.rs", "fn main() {}").expect("a source");
        let before = state();
        for name in [".main.rs.swp", "main.rs~"] {
            write(name, "b0VIM").expect("an editor's file");
        }
        assert_eq!(state(), before);
        write("cgroup.rs", "").expect("another source");
        assert_ne!(state(), before);
    }
}
