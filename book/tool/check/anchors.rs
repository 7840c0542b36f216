//! The marks in what is included: mdBook shows an empty block where one is
//! missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use syn::{ImplItem, Item};

use super::files;
use super::text::Chapter;
use crate::diffs::STEPS;

/// Missing, unclosed, duplicated and unused anchors, and those that do not
/// stand around a whole item of that name.
pub fn check(root: &Path, chapters: &[Chapter]) -> Result<Vec<String>> {
    let mut used: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for chapter in chapters {
        for include in &chapter.includes {
            if is_anchor(&include.part) {
                used.entry(&include.path).or_default().insert(&include.part);
            }
        }
    }
    let mut marked = Vec::new();
    for step in STEPS {
        marked.extend(files(&root.join(step).join("src"), ".rs")?);
    }
    let mut known: BTreeMap<String, Marked> = BTreeMap::new();
    for path in marked.iter().map(|path| path.strip_prefix(root)) {
        let path = path?.to_string_lossy().into_owned();
        known.insert(path.clone(), Marked::read(root, &path)?);
    }
    for path in used.keys() {
        if !known.contains_key(*path) && root.join(path).is_file() {
            known.insert((*path).to_owned(), Marked::read(root, path)?);
        }
    }
    let nothing = BTreeSet::new();
    for (path, marked) in &known {
        wrong.extend(marked.wrong.iter().map(|what| format!("{path}{what}")));
        let used = used.get(&**path).unwrap_or(&nothing);
        for name in marked.regions.keys() {
            if !used.contains(&**name) {
                wrong.push(format!("{path}: no chapter shows anchor {name}"));
            }
        }
    }
    for chapter in chapters {
        for include in &chapter.includes {
            let Some(marked) = known.get(&include.path) else { continue };
            let there = marked.regions.contains_key(&include.part);
            if is_anchor(&include.part) && !there {
                let (path, name) = (&include.path, &include.part);
                let what = format!("{path} has no anchor {name}");
                wrong.push(chapter.complain(include.at, what));
            }
        }
    }
    Ok(wrong)
}

/// Not a range of lines such as `4:`.
fn is_anchor(part: &str) -> bool {
    part.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// What is marked in a file.
#[derive(Debug, Default)]
struct Marked {
    regions: BTreeMap<String, String>,
    /// Each begins with `:LINE: `.
    wrong: Vec<String>,
}

impl Marked {
    fn read(root: &Path, path: &str) -> Result<Self> {
        let text = fs::read_to_string(root.join(path))
            .with_context(|| format!("cannot read {path}"))?;
        let mut marked = Self::new(&text);
        if path.ends_with(".rs") {
            for (name, region) in &marked.regions {
                if !is_item(region, name) {
                    marked.wrong.push(format!(
                        ": anchor {name} is not around the whole of {name}"
                    ));
                }
            }
        }
        Ok(marked)
    }

    fn new(text: &str) -> Self {
        let mut marked = Self::default();
        let mut open: BTreeMap<&str, (usize, String)> = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut complain =
                |what: String| marked.wrong.push(format!(":{number}: {what}"));
            if let Some(name) = mark(line, "ANCHOR: ") {
                if open.contains_key(name) || marked.regions.contains_key(name)
                {
                    complain(format!("anchor {name} is there twice"));
                }
                open.insert(name, (number, String::new()));
            } else if let Some(name) = mark(line, "ANCHOR_END: ") {
                match open.remove(name) {
                    Some((_, region)) => {
                        marked.regions.insert(name.to_owned(), region);
                    }
                    None => complain(format!("anchor {name} is not open")),
                }
            } else {
                for (_, region) in open.values_mut() {
                    *region += line;
                    region.push('\n');
                }
            }
        }
        for (name, (number, _)) in open {
            marked
                .wrong
                .push(format!(":{number}: anchor {name} is not closed"));
        }
        marked
    }
}

/// The name in `// ANCHOR: name` or `<!-- ANCHOR: name -->`.
fn mark<'a>(line: &'a str, kind: &str) -> Option<&'a str> {
    line.split_once(kind)?.1.split_whitespace().next()
}

/// Whether that is one item, or one of an `impl`, of that name.
fn is_item(region: &str, name: &str) -> bool {
    if let Ok(file) = syn::parse_file(region) {
        let [item] = &file.items[..] else { return false };
        let ident = match item {
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Struct(item) => Some(&item.ident),
            _ => None,
        };
        return ident.is_some_and(|ident| ident == name);
    }
    // A method is no item by itself.
    let region = format!("impl Anchored {{\n{region}\n}}");
    let Ok(item) = syn::parse_str::<syn::ItemImpl>(&region) else {
        return false;
    };
    matches!(&item.items[..], [ImplItem::Fn(item)] if item.sig.ident == name)
}

#[cfg(test)]
mod tests {
    use super::{Marked, is_item};

    fn wrong(text: &str) -> Vec<String> {
        Marked::new(text).wrong
    }

    #[test]
    fn a_region_is_what_stands_between() {
        let text = "a\n// ANCHOR: one\nb\n// ANCHOR_END: one\nc\n\
                    <!-- ANCHOR: two -->\nd\n<!-- ANCHOR_END: two -->\n";
        let marked = Marked::new(text);
        assert_eq!(marked.regions["one"], "b\n");
        assert_eq!(marked.regions["two"], "d\n");
        assert!(marked.wrong.is_empty());
    }

    #[test]
    fn broken_marks() {
        let (open, close) = ("// ANCHOR: a\n", "// ANCHOR_END: a\n");
        assert_eq!(wrong(open), [":1: anchor a is not closed"]);
        assert_eq!(wrong(close), [":1: anchor a is not open"]);
        let twice = format!("{open}{close}{open}{close}");
        assert_eq!(wrong(&twice), [":3: anchor a is there twice"]);
    }

    #[test]
    fn an_anchor_is_around_a_whole_item() {
        assert!(is_item("/// Runs.\nfn run() {}\n", "run"));
        assert!(is_item(
            "    /// Makes.\n    pub fn new() -> Self { x }",
            "new"
        ));
        assert!(is_item("const A: u8 = 1;", "A"));
        assert!(!is_item("fn run() {}", "child"));
        assert!(!is_item("fn run() {\n", "run"));
        assert!(!is_item("fn run() {}\nfn more() {}\n", "run"));
        assert!(!is_item("", "run"));
    }
}
