//! Building steps with patches applied, in a workspace of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail, ensure};
use diffy::patch_set::{FileOperation, ParseOptions, PatchSet};
use diffy::{Line, Patch};

/// Where the patches are.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/patches");

/// Where the file of a patch stands.
pub fn path(patch: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{patch}.patch"))
}

/// The programs, or why there is none, by patch.
pub type Programs = BTreeMap<&'static str, Result<PathBuf>>;

/// Builds the step of each patch with the patch applied.
pub fn build(
    patches: impl Iterator<Item = (&'static str, &'static str)>,
) -> Result<Programs> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize()?;
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let place = target.context("no target folder")?.join("patches");

    let mut programs = Programs::new();
    let mut applied: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
    for (patch, step) in patches {
        match apply(&root.join(step), &place.join(step).join(patch), patch) {
            Ok(()) => applied.entry(step).or_default().push(patch),
            Err(error) => _ = programs.insert(patch, Err(error)),
        }
    }
    write_manifests(&root, &place, &applied)?;
    let n: usize = applied.values().map(Vec::len).sum();
    let _ = writeln!(io::stderr(), "building {n} patched programs");
    let all = cargo(&place, &["--keep-going"])?;
    for (step, patches) in applied {
        for patch in patches {
            // Some did not compile: one by one, to tell which and why.
            let built = match all.status.success() {
                true => Ok(()),
                false => built_alone(&place, patch),
            };
            let program = built.and_then(|()| named(&place, step, patch));
            programs.insert(patch, program);
        }
    }
    Ok(programs)
}

/// Copies the sources of a step, with the patch applied.
fn apply(step: &Path, into: &Path, patch: &str) -> Result<()> {
    let text = fs::read_to_string(path(patch))
        .with_context(|| format!("cannot read {patch}.patch"))?;
    // The book shows it. But git-apply(1) wants a line after each change.
    let lines: Vec<_> = text.lines().collect();
    for (n, line) in lines.iter().enumerate() {
        let is_needed = n > 0 && !lines[n - 1].starts_with(' ');
        ensure!(
            is_needed || !line.contains("// ANCHOR"),
            "an anchor stands in {patch}.patch"
        );
    }
    let mut changes: BTreeMap<String, Patch<str>> = BTreeMap::new();
    for file in PatchSet::parse(&text, ParseOptions::unidiff()) {
        let file = file.with_context(|| format!("{patch}.patch"))?;
        let FileOperation::Modify { modified, .. } = file.operation() else {
            bail!("{patch}.patch does more than modify a file");
        };
        let name = modified.to_string();
        let change = file.into_patch();
        let change = change.as_text().context("binary")?.clone();
        for hunk in change.hunks() {
            let is_closed =
                matches!(hunk.lines().last(), Some(Line::Context(_)));
            ensure!(
                is_closed,
                "git apply wants a line after the changes in {patch}.patch"
            );
        }
        changes.insert(name, change);
    }
    ensure!(!changes.is_empty(), "{patch}.patch changes nothing");
    let step_name = step.file_name().unwrap_or_default().to_string_lossy();
    for entry in fs::read_dir(step.join("src"))? {
        let source = entry?.path();
        let name = source.file_name().unwrap_or_default();
        let text = fs::read_to_string(&source)?;
        let known = format!("b/{step_name}/src/{}", name.to_string_lossy());
        let text = match changes.remove(&known) {
            Some(change) => {
                diffy::apply(&text, &change).with_context(|| {
                    format!(
                        "{patch}.patch on {known}; where an anchor has come \
                         between its lines, let its context end there"
                    )
                })?
            }
            None => text,
        };
        write(&into.join(name), &text)?;
    }
    let unknown: Vec<_> = changes.keys().collect();
    ensure!(unknown.is_empty(), "{patch}.patch: there is no {unknown:?}");
    Ok(())
}

/// A workspace like ours: a package per step, with a program per patch.
fn write_manifests(
    root: &Path,
    place: &Path,
    applied: &BTreeMap<&str, Vec<&str>>,
) -> Result<()> {
    let ours = fs::read_to_string(root.join("Cargo.toml"))?;
    let names: Vec<_> = applied.keys().collect();
    let mut manifest =
        format!("[workspace]\nresolver = \"3\"\nmembers = {names:?}\n\n");
    // Ours without the members; its paths lead from another folder.
    let to_ours = format!("path = \"{}/", root.display());
    manifest += &sections(&ours, |head| head != "[workspace]")
        .replace("path = \"", &to_ours);
    write(&place.join("Cargo.toml"), &manifest)?;
    // cargo takes what this workspace has no use for out of the copy.
    fs::copy(root.join("Cargo.lock"), place.join("Cargo.lock"))?;
    let kept = BTreeSet::from(["[package]", "[dependencies]", "[lints]"]);
    for (step, patches) in applied {
        let ours = fs::read_to_string(root.join(step).join("Cargo.toml"))?;
        let mut manifest = sections(&ours, |head| kept.contains(head))
            .replace("\"../", &format!("\"{}/", root.display()));
        for patch in patches {
            manifest += &format!(
                "\n[[bin]]\nname = \"patched-{patch}\"\n\
                 path = \"{patch}/main.rs\"\n"
            );
        }
        write(&place.join(step).join("Cargo.toml"), &manifest)?;
    }
    Ok(())
}

/// Those sections of a manifest whose heads are wanted.
fn sections(manifest: &str, is_wanted: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    let mut is_in = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_in = is_wanted(line.trim());
        }
        if is_in {
            text += line;
            text.push('\n');
        }
    }
    text
}

/// Writes a file if it is another by that, so that nothing is built twice.
fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().context("no folder")?)?;
    fs::write(path, text)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn cargo(place: &Path, args: &[&str]) -> Result<Output> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Command::new(cargo)
        .args(["build", "--offline", "--quiet"])
        .args(args)
        .arg("--target-dir")
        .arg(place.join("target"))
        .current_dir(place)
        .output()
        .context("cannot start cargo")
}

fn built_alone(place: &Path, patch: &str) -> Result<()> {
    let output = cargo(place, &["--bin", &format!("patched-{patch}")])?;
    ensure!(
        output.status.success(),
        "with {patch}.patch it does not compile:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The same program under the name of its step, as in transcripts.
fn named(place: &Path, step: &str, patch: &str) -> Result<PathBuf> {
    let built = place.join("target/debug").join(format!("patched-{patch}"));
    let folder = place.join("programs").join(patch);
    fs::create_dir_all(&folder)?;
    let program = folder.join(step);
    let _ = fs::remove_file(&program);
    fs::hard_link(&built, &program)
        .with_context(|| format!("cannot link {}", built.display()))?;
    Ok(program)
}
