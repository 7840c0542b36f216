//! What mdBook is silent about, and what only this project asks for.

mod anchors;
mod pages;
mod shape;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{build, generated, hints, schedule};

/// Everything that is wrong, a line each.
pub fn all(root: &Path) -> Result<Vec<String>> {
    let chapters = text::chapters(root)?;
    let mut wrong = generated::check(root)?;
    wrong.extend(text::check(root, &chapters)?);
    wrong.extend(anchors::check(root, &chapters)?);
    wrong.extend(shape::check(&chapters));
    wrong.extend(hints::check(root)?);
    wrong.extend(schedule::check(root)?);
    // Links are looked at last, in the pages as a reader has them.
    if wrong.is_empty() {
        wrong.extend(pages::check(&build(root)?)?);
    }
    Ok(wrong)
}

/// The files of a folder and those below it that end in `ending`.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path, ending)?);
        } else if path.to_string_lossy().ends_with(ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
