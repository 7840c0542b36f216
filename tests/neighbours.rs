//! Step N+1 is step N plus one idea: what two neighbours share is the same in
//! both, word for word, and what differs is declared by the later one:
//!
//! ```toml
//! [package.metadata.step]
//! changes = ["Cli", "child", "mount_proc"]
//! ```
//!
//! `src/cgroup.rs` of step07 stands apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use similar::{Algorithm, DiffOp, capture_diff_slices};
use syn::spanned::Spanned as _;
use syn::{Item, Type};

const STEPS: [&str; 7] = [
    "step01-exec",
    "step02-uts",
    "step03-pid",
    "step04-chroot",
    "step05-proc",
    "step06-pivot-root",
    "step07-cgroups",
];

/// As many lines of code may change from one step to the next.
const MOST: usize = 60;

/// The items of a file by name, each with its documentation and attributes.
fn items(source: &str) -> Result<BTreeMap<String, &str>> {
    let file = syn::parse_file(source)?;
    let mut found = BTreeMap::new();
    for item in &file.items {
        if let Some(name) = name(item) {
            let text = &source[item.span().byte_range()];
            let known = found.insert(name.clone(), text);
            ensure!(known.is_none(), "two items are called {name}");
        }
    }
    Ok(found)
}

/// None for what is no item of its own, such as `use`.
fn name(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(item) => item.ident.to_string(),
        Item::Enum(item) => item.ident.to_string(),
        Item::Fn(item) => item.sig.ident.to_string(),
        Item::Macro(item) => item.ident.as_ref()?.to_string(),
        Item::Mod(item) => item.ident.to_string(),
        Item::Static(item) => item.ident.to_string(),
        Item::Struct(item) => item.ident.to_string(),
        Item::Trait(item) => item.ident.to_string(),
        Item::Type(item) => item.ident.to_string(),
        Item::Impl(item) => {
            let Type::Path(of) = &*item.self_ty else {
                return Some("impl".to_owned());
            };
            let of = last(&of.path);
            match &item.trait_ {
                Some((path, ..)) => format!("impl {} for {of}", last(path)),
                None => format!("impl {of}"),
            }
        }
        _ => return None,
    })
}

fn last(path: &syn::Path) -> String {
    path.segments
        .last()
        .map(|segment| segment.ident.to_string())
        .unwrap_or_default()
}

/// The items that differ, appear or vanish.
fn changes(before: &str, after: &str) -> Result<BTreeSet<String>> {
    let (before, after) = (items(before)?, items(after)?);
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    Ok(names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
        .collect())
}

/// The lines of code that change: comments and blank lines apart, and a line
/// that is replaced by another counts once.
fn changed_lines(before: &str, after: &str) -> usize {
    let code = |source: &'_ str| -> Vec<String> {
        source
            .lines()
            .filter(|line| {
                let line = line.trim_start();
                !line.is_empty() && !line.starts_with("//")
            })
            .map(str::to_owned)
            .collect()
    };
    let ops =
        capture_diff_slices(Algorithm::Patience, &code(before), &code(after));
    ops.iter()
        .map(|op| match *op {
            DiffOp::Equal { .. } => 0,
            DiffOp::Delete { old_len, .. } => old_len,
            DiffOp::Insert { new_len, .. } => new_len,
            DiffOp::Replace { old_len, new_len, .. } => old_len.max(new_len),
        })
        .sum()
}

/// What is wrong between two neighbours.
fn complaints(
    before: &str,
    after: &str,
    declared: &BTreeSet<String>,
) -> Result<Vec<String>> {
    let changes = changes(before, after)?;
    let mut wrong: Vec<String> = changes
        .difference(declared)
        .map(|name| format!("{name} differs and is not declared"))
        .collect();
    wrong.extend(
        declared
            .difference(&changes)
            .map(|name| format!("{name} is declared and does not differ")),
    );
    let lines = changed_lines(before, after);
    if lines > MOST {
        wrong.push(format!("{lines} lines change, more than {MOST}"));
    }
    Ok(wrong)
}

/// What the later step's manifest declares: a list of names, which needs no
/// more of TOML than quotes and brackets.
fn declared(manifest: &str) -> Result<BTreeSet<String>> {
    let (_, step) = manifest
        .split_once("\n[package.metadata.step]\n")
        .context("no [package.metadata.step]")?;
    let (names, _) = step
        .strip_prefix("changes = [")
        .and_then(|names| names.split_once(']'))
        .context("[package.metadata.step] has no changes = […]")?;
    // Every second piece stands between quotes.
    Ok(names.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

#[test]
fn neighbours_differ_by_one_idea() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |step: &str, file: &str| {
        let path = root.join(step).join(file);
        fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))
    };
    let mut wrong = Vec::new();
    for pair in STEPS.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        let sources =
            (read(before, "src/main.rs")?, read(after, "src/main.rs")?);
        let lines = changed_lines(&sources.0, &sources.1);
        let _ = writeln!(
            io::stdout(),
            "{before} to {after}: {lines} lines, {}",
            changes(&sources.0, &sources.1)?
                .into_iter()
                .collect::<Vec<_>>()
                .join(", ")
        );
        let declared = declared(&read(after, "Cargo.toml")?);
        let found = match declared {
            Ok(declared) => complaints(&sources.0, &sources.1, &declared)?,
            Err(error) => vec![error.to_string()],
        };
        let found = found.into_iter();
        wrong.extend(found.map(|line| format!("{before} to {after}: {line}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "//! One.\n\nuse std::fs;\n\n/// Runs.\n\
                          fn run() {\n    one();\n}\n\nfn same() {}\n";

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn found(after: &str, declared: &[&str]) -> Vec<String> {
        complaints(BEFORE, after, &names(declared)).expect("valid Rust")
    }

    #[test]
    fn nothing_changes() {
        assert!(found(BEFORE, &[]).is_empty());
        // The head of the file and its imports are free.
        let after = BEFORE.replace("One", "Two").replace("fs", "io");
        assert!(found(&after, &[]).is_empty());
        assert_eq!(changed_lines(BEFORE, &after), 1);
    }

    #[test]
    fn an_undeclared_change() {
        let after = BEFORE.replace("one()", "two()");
        assert_eq!(found(&after, &[]), ["run differs and is not declared"]);
        assert!(found(&after, &["run"]).is_empty());
        // Only the comment.
        let after = BEFORE.replace("Runs.", "Walks.");
        assert_eq!(found(&after, &[]), ["run differs and is not declared"]);
        assert_eq!(changed_lines(BEFORE, &after), 0);
    }

    #[test]
    fn an_item_that_appears_or_vanishes() {
        let after = BEFORE.replace("fn same() {}", "");
        assert_eq!(found(&after, &[]), ["same differs and is not declared"]);
        let after = format!("{BEFORE}\nimpl fmt::Display for Stage {{}}\n");
        assert_eq!(
            found(&after, &[]),
            ["impl Display for Stage differs and is not declared"]
        );
    }

    #[test]
    fn a_declaration_without_a_change() {
        assert_eq!(
            found(BEFORE, &["same"]),
            ["same is declared and does not differ"]
        );
    }

    #[test]
    fn too_many_lines() {
        let body = |n: usize| "    two();\n".repeat(n);
        let after = |n| BEFORE.replace("    one();\n", &body(n));
        // The first of them replaces a line.
        assert!(found(&after(60), &["run"]).is_empty());
        assert_eq!(
            found(&after(61), &["run"]),
            ["61 lines change, more than 60"]
        );
    }

    #[test]
    fn what_a_manifest_declares() {
        let manifest = "[package]\n\n[package.metadata.step]\nchanges = [\n    \
                        \"run\",\n    \"impl A for B\",\n]\n\n[lints]\n";
        assert_eq!(
            declared(manifest).expect("valid"),
            names(&["run", "impl A for B"])
        );
        assert!(declared("[package]\nname = \"x\"\n").is_err());
    }
}
