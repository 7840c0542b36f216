//! `book/generated`: what the text includes and nobody writes by hand.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{bench, diffs, hints, pictures, schedule};

/// The folder.
pub fn folder(root: &Path) -> PathBuf {
    root.join("book/generated")
}

/// What it should hold, by name.
fn files(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    files.insert("what-holds.md".to_owned(), suite::property::markdown());
    files.extend(bench::files(root)?);
    files.extend(diffs::files(root)?);
    files.extend(hints::files(root)?);
    files.extend(pictures::files(root)?);
    files.extend(schedule::files(root)?);
    Ok(files)
}

/// Brings it up to date. A file that is as it should be is left alone.
pub fn write(root: &Path) -> Result<()> {
    let folder = folder(root);
    let files = files(root)?;
    for name in present(&folder)? {
        if !files.contains_key(&name) {
            fs::remove_file(folder.join(&name))
                .with_context(|| format!("cannot remove {name}"))?;
        }
    }
    for (name, text) in files {
        let path = folder.join(name);
        if read(&path)?.as_ref() != Some(&text) {
            fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// What is not up to date in it.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let folder = folder(root);
    let files = files(root)?;
    let mut wrong = Vec::new();
    for name in present(&folder)? {
        if !files.contains_key(&name) {
            wrong.push(format!("book/generated/{name}: nothing generates it"));
        }
    }
    for (name, text) in files {
        if read(&folder.join(&name))? != Some(text) {
            wrong.push(format!(
                "book/generated/{name}: stale, run `cargo workshop book`"
            ));
        }
    }
    Ok(wrong)
}

fn present(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error)
            .with_context(|| format!("cannot read {}", path.display())),
    }
}
