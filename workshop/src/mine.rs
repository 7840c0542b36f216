//! `mine/`: the participant's own crate, ignored by git and no member of the
//! workspace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::item::without_marks;
use crate::step::Step;

/// The folder and the crate.
pub const NAME: &str = "mine";

/// Holds the number of the step that is being worked on.
const TASK: &str = ".step";

/// What a step may depend on.
const CRATES: [&str; 4] = ["anyhow", "clap", "nix", "signal-hook"];

/// The participant's crate.
#[derive(Debug)]
pub struct Mine {
    folder: PathBuf,
}

impl Mine {
    /// Where it is, or would be.
    pub fn folder(root: &Path) -> PathBuf {
        root.join(NAME)
    }

    /// The one that is there.
    pub fn find(root: &Path) -> Result<Self> {
        let folder = Self::folder(root);
        if !folder.join("Cargo.toml").exists() {
            bail!("there is no mine/ yet: `cargo workshop start` makes it");
        }
        Ok(Self { folder })
    }

    /// Makes it, with the source of the first step. It is there whole or not
    /// at all.
    pub fn make(root: &Path) -> Result<Self> {
        let folder = Self::folder(root);
        if folder.symlink_metadata().is_ok() {
            if Self::find(root).is_err() {
                bail!(
                    "mine is there already, without a Cargo.toml: move it \
                     away, then `cargo workshop start` again"
                );
            }
            bail!(
                "mine/ is there already: `cargo workshop catch-up 01` puts it \
                 back to the first step and keeps what you have"
            );
        }
        let unfinished = tempfile::Builder::new()
            .prefix(".mine.unfinished.")
            .tempdir_in(root)
            .context("cannot make mine/")?;
        let mine = Self { folder: unfinished.path().to_owned() };
        let manifest_path = root.join("Cargo.toml");
        let manifest = read(&manifest_path)?;
        mine.write("Cargo.toml", &self::manifest(&manifest)?)?;
        mine.write(".cargo/config.toml", &config(&manifest_path))?;
        mine.write("Cargo.lock", &read(&root.join("Cargo.lock"))?)?;
        mine.copy(root, Step::FIRST)?;
        mine.set_task(Step::FIRST.next().unwrap_or(Step::FIRST))?;
        fs::rename(unfinished.keep(), &folder).context("cannot make mine/")?;
        Ok(Self { folder })
    }

    /// The step that is being worked on.
    pub fn task(&self) -> Result<Step> {
        let task = fs::read_to_string(self.folder.join(TASK));
        task.ok().and_then(|task| task.trim().parse().ok()).context(
            "mine/.step does not say which step you are working on: for \
             step 2, say, write 02 into it",
        )
    }

    /// Goes on to another one.
    pub fn set_task(&self, step: Step) -> Result<()> {
        self.write(TASK, &format!("{:02}\n", step.number()))
    }

    /// How many hints for a step have been seen.
    pub fn hints_seen(&self, step: Step) -> usize {
        let seen = fs::read_to_string(self.folder.join(hints(step)));
        seen.ok().and_then(|seen| seen.trim().parse().ok()).unwrap_or(0)
    }

    /// Remembers that.
    pub fn set_hints_seen(&self, step: Step, number: usize) -> Result<()> {
        self.write(&hints(step), &format!("{number}\n"))
    }

    /// Puts a step's source in the place of the participant's, which is kept,
    /// if there is one; says where, from the repository's root.
    pub fn replace_source(
        &self,
        root: &Path,
        step: Step,
    ) -> Result<Option<String>> {
        if self.source().symlink_metadata().is_err() {
            self.copy(root, step)?;
            return Ok(None);
        }
        let kept = (1..)
            .map(|number| format!("kept/{number}"))
            .find(|kept| !self.folder.join(kept).exists())
            .unwrap_or_default();
        let (source, place) = (self.source(), self.folder.join(&kept));
        let keep = || format!("cannot keep mine/src as mine/{kept}");
        fs::create_dir_all(place.parent().unwrap_or(&place))
            .with_context(keep)?;
        fs::rename(&source, &place).with_context(keep)?;
        self.copy(root, step).inspect_err(|_| {
            let _ = fs::remove_dir_all(&source);
            let _ = fs::rename(&place, &source);
        })?;
        Ok(Some(format!("{NAME}/{kept}")))
    }

    /// The participant's source.
    pub fn source(&self) -> PathBuf {
        self.folder.join("src")
    }

    /// The manifest, for cargo.
    pub fn manifest(&self) -> PathBuf {
        self.folder.join("Cargo.toml")
    }

    fn copy(&self, root: &Path, step: Step) -> Result<()> {
        let source = root.join(step.package()).join("src");
        let list = || format!("cannot list {}", source.display());
        for entry in fs::read_dir(&source).with_context(list)? {
            let name = entry.with_context(list)?.file_name();
            let text = read(&source.join(&name))?;
            let name = Path::new("src").join(name);
            self.write(&name.to_string_lossy(), &without_marks(&text))?;
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        let write = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(&path, text)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

fn hints(step: Step) -> String {
    format!(".hints/{:02}", step.number())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", path.display()))
}

/// So that what the course has compiled serves here, too, and so does
/// `cargo workshop`: cargo would look for it among the packages of mine/.
fn config(of_the_course: &Path) -> String {
    // An alias has spaces between its words and no way to quote one, so in a
    // folder with a space in its name it is for mine/ itself only.
    let path = of_the_course.to_str();
    let path = path.filter(|path| !path.contains([' ', '"', '\\']));
    let path = path.unwrap_or("../Cargo.toml");
    format!(
        "[build]\ntarget-dir = \"../target\"\n\n[alias]\n\
         workshop = \"run -q --manifest-path {path} -p workshop --\"\n"
    )
}

/// A manifest with the versions of the course's own.
fn manifest(of_the_course: &str) -> Result<String> {
    let mut text = format!(
        "# Your own container. `cargo workshop hint` says what to do.\n\n\
         [package]\nname = \"{NAME}\"\nversion = \"0.1.0\"\n\
         edition = \"2024\"\npublish = false\n\n\
         # It stands by itself.\n[workspace]\n\n[dependencies]\n"
    );
    for name in CRATES {
        let line = of_the_course
            .lines()
            .find(|line| line.starts_with(&format!("{name} = ")))
            .with_context(|| format!("the course has no {name}"))?;
        text += &format!("{line}\n");
    }
    text += "doctor = { path = \"../doctor\" }\n\
             rootfs = { path = \"../rootfs\" }\n";
    // With other settings everything would have to be compiled once more.
    let profiles = of_the_course
        .split_inclusive("\n\n")
        .filter(|section| section.contains("[profile.dev"));
    for profile in profiles {
        text += &format!("\n{}\n", profile.trim_end());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::manifest;

    #[test]
    fn the_versions_are_the_courses() {
        let course = include_str!("../../Cargo.toml");
        let mine = manifest(course).expect("all crates are there");
        for line in mine.lines().filter(|line| line.contains("version")) {
            let is_package = line == "version = \"0.1.0\"";
            assert!(is_package || course.contains(line), "{line}");
        }
        assert!(mine.contains("\nnix = { version = "));
        assert!(mine.contains("\n[profile.dev]\ndebug = "));
        assert!(!mine.contains("release"));
        assert!(manifest("anyhow = \"1\"").is_err());
    }
}
