//! The text as it is written: it holds no copy of what it shows.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::files;

/// The columns that a line of code may have.
const COLUMNS: usize = 80;

/// One file of the text.
#[derive(Debug)]
pub struct Chapter {
    /// Such as `05-proc.md`.
    pub name: String,
    /// What stands in it.
    pub text: String,
    /// What it includes, in the order of the text.
    pub includes: Vec<Include>,
    blocks: Vec<Block>,
}

/// `{{#include ../../step05-proc/src/main.rs:mount_proc}}`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Include {
    /// `include` or `rustdoc_include`.
    pub directive: String,
    /// From the repository's root, such as `step05-proc/src/main.rs`.
    pub path: String,
    /// What follows it, `mount_proc` or `4:`.
    pub part: String,
    /// Where it stands in the text.
    pub at: usize,
}

/// A block of code.
#[derive(Debug)]
struct Block {
    /// None when it is indented, not fenced.
    language: Option<String>,
    body: String,
    range: Range<usize>,
}

impl Chapter {
    /// Takes a text apart.
    pub fn new(name: &str, text: String) -> Self {
        let (includes, blocks) = (includes(&text), blocks(&text));
        Self { name: name.to_owned(), text, includes, blocks }
    }

    /// A complaint about a place in the text.
    pub fn complain(&self, at: usize, what: impl AsRef<str>) -> String {
        let line = self.text[..at].lines().count().max(1);
        let line = line + usize::from(self.text[..at].ends_with('\n'));
        format!("book/text/{}:{line}: {}", self.name, what.as_ref())
    }
}

/// All of `book/text`.
pub fn chapters(root: &Path) -> Result<Vec<Chapter>> {
    let folder = root.join("book/text");
    files(&folder, ".md")?
        .iter()
        .map(|path| {
            let name = path.strip_prefix(&folder)?.to_string_lossy();
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Chapter::new(&name, text))
        })
        .collect()
}

fn includes(text: &str) -> Vec<Include> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("{{#") {
        let Some((inner, _)) = text[at + 3..].split_once("}}") else {
            continue;
        };
        let (directive, target) =
            inner.trim().split_once(' ').unwrap_or((inner, ""));
        let (path, part) =
            target.trim().split_once(':').unwrap_or((target.trim(), ""));
        found.push(Include {
            directive: directive.to_owned(),
            path: from_root(path),
            part: part.to_owned(),
            at,
        });
    }
    found
}

/// A path as seen from `book/text`, as seen from the root.
fn from_root(path: &str) -> String {
    let mut parts = vec!["book", "text"];
    for part in path.split('/') {
        match part {
            "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    let parser = Parser::new_ext(text, Options::all());
    for (event, range) in parser.into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                inside = true;
                let language = match kind {
                    CodeBlockKind::Fenced(language) => {
                        Some(language.into_string())
                    }
                    CodeBlockKind::Indented => None,
                };
                blocks.push(Block { language, body: String::new(), range });
            }
            Event::End(TagEnd::CodeBlock) => inside = false,
            Event::Text(part) if inside => {
                if let Some(block) = blocks.last_mut() {
                    block.body += &part;
                }
            }
            _ => {}
        }
    }
    blocks
}

/// What is wrong with the text, anchors, shape and links apart.
pub fn check(root: &Path, chapters: &[Chapter]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for chapter in chapters {
        wrong.extend(includes_of_missing_files(root, chapter));
        wrong.extend(copies(chapter));
    }
    wrong.extend(unlisted(chapters));
    let folders = [("tests/transcripts", ".snap"), ("tests/patches", ".patch")];
    for (folder, ending) in folders {
        wrong.extend(not_shown(root, folder, ending, chapters)?);
    }
    Ok(wrong)
}

/// mdBook leaves such a directive on the page and goes on.
fn includes_of_missing_files(root: &Path, chapter: &Chapter) -> Vec<String> {
    let missing = chapter.includes.iter().filter_map(|include| {
        let known = ["include", "rustdoc_include"];
        if !known.contains(&&*include.directive) {
            let what = format!("no directive {:?}", include.directive);
            return Some(chapter.complain(include.at, what));
        }
        let exists = root.join(&include.path).is_file();
        let what = format!("there is no {}", include.path);
        (!exists).then(|| chapter.complain(include.at, what))
    });
    missing.collect()
}

/// Code and output come from the programs, what a reader types does not.
fn copies(chapter: &Chapter) -> Vec<String> {
    let mut wrong = Vec::new();
    for block in &chapter.blocks {
        let mut complain =
            |what: &str| wrong.push(chapter.complain(block.range.start, what));
        let inside: Vec<_> = chapter
            .includes
            .iter()
            .filter(|include| block.range.contains(&include.at))
            .collect();
        let body = block.body.trim();
        let is_include = inside.len() == 1
            && body.starts_with("{{#")
            && body.find("}}") == Some(body.len() - 2);
        match (block.language.as_deref(), &inside[..]) {
            (Some("rust"), [include]) if is_include => {
                if include.directive != "rustdoc_include"
                    || include.part.is_empty()
                {
                    complain("a listing shows one anchor, by rustdoc_include");
                } else if !is_captioned(&chapter.text, block, include) {
                    complain(&format!(
                        "before this listing there has to be the caption {}",
                        caption(include)
                    ));
                }
            }
            (Some("console"), [include]) if is_include => {
                if !include.path.starts_with("tests/transcripts/")
                    || include.part != "4:"
                {
                    complain("a session is a transcript, from its line 4 on");
                }
            }
            (Some("diff"), [_]) if is_include => {}
            (Some("text"), [include])
                if is_include
                    && include.path.starts_with("book/generated/") => {}
            (Some(language @ ("rust" | "console" | "diff")), _) => {
                complain(&format!("a {language} block holds a copy"));
            }
            (Some("sh"), []) => {
                let long = body.lines().find(|l| l.chars().count() > COLUMNS);
                if let Some(line) = long {
                    complain(&format!("more than {COLUMNS} columns: {line}"));
                }
            }
            (Some("toml" | "yaml" | "dockerfile"), []) => {}
            (Some(language), _) => {
                complain(&format!("a block of {language:?} is not expected"));
            }
            (None, _) => complain("an indented block of code"),
        }
    }
    wrong
}

/// The line that says where a listing comes from.
fn caption(include: &Include) -> String {
    let Include { path, part, .. } = include;
    format!("<p class=\"caption\"><code>{part}</code> in {path}</p>")
}

fn is_captioned(text: &str, block: &Block, include: &Include) -> bool {
    let line = text[..block.range.start].lines().rev().find(|l| !l.is_empty());
    line.is_some_and(|line| line.trim() == caption(include))
}

/// mdBook makes no page of a file that the summary does not name.
fn unlisted(chapters: &[Chapter]) -> Vec<String> {
    let Some(summary) = chapters.iter().find(|c| c.name == "SUMMARY.md") else {
        return vec!["there is no book/text/SUMMARY.md".to_owned()];
    };
    chapters
        .iter()
        .filter(|chapter| chapter.name != "SUMMARY.md")
        .filter(|c| !summary.text.contains(&format!("]({})", c.name)))
        .map(|c| c.complain(0, "SUMMARY.md does not list it"))
        .collect()
}

/// The suite asserts it, and no reader gets to see it.
fn not_shown(
    root: &Path,
    folder: &str,
    ending: &str,
    chapters: &[Chapter],
) -> Result<Vec<String>> {
    let shown: BTreeSet<&str> = chapters
        .iter()
        .flat_map(|chapter| &chapter.includes)
        .map(|include| &*include.path)
        .collect();
    let all = files(&root.join(folder), ending)?;
    let names = all.iter().map(|path: &PathBuf| path.strip_prefix(root));
    let mut wrong = Vec::new();
    for name in names {
        let name = name?.to_string_lossy();
        if !shown.contains(&*name) {
            wrong.push(format!("{name}: no chapter shows it"));
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::{Chapter, copies, from_root, unlisted};

    const CAPTION: &str =
        "<p class=\"caption\"><code>run</code> in step01-exec/src/main.rs</p>";
    const LISTING: &str = "```rust\n{{#rustdoc_include ../../step01-exec/src/main.rs:run}}\n```\n";

    fn complaints(text: &str) -> Vec<String> {
        copies(&Chapter::new("01.md", text.to_owned()))
    }

    #[track_caller]
    fn complains(text: &str, what: &str) {
        let found = complaints(text);
        assert!(found.len() == 1 && found[0].contains(what), "{found:?}");
    }

    #[test]
    fn listings_sessions_and_diffs_are_included() {
        let text = format!(
            "# One\n\n{CAPTION}\n\n{LISTING}\n\
             ```console\n{{{{#include ../../tests/transcripts/a.snap:4:}}}}\n```\n\n\
             ```diff\n{{{{#include ../generated/02.diff}}}}\n```\n\n\
             ```sh\ncargo test\n```\n"
        );
        assert_eq!(complaints(&text), [""; 0]);
    }

    #[test]
    fn copies_are_found() {
        complains("a\n\n```rust\nfn main() {}\n```\n", "01.md:3: a rust block");
        complains("```console\n$ ls\n```\n", "a console block holds a copy");
        complains("```diff\n- a\n+ b\n```\n", "a diff block holds a copy");
        complains("```\n$ ls\n```\n", "is not expected");
        complains("a\n\n    ls\n", "indented");
        // An include with something around it is one, too.
        let more = LISTING.replace("}}\n", "}}\nfn more() {}\n");
        complains(&format!("{CAPTION}\n\n{more}"), "a rust block holds a copy");
        let folded =
            format!("<details>\n\n{}\n</details>", "```rust\nx\n```\n");
        complains(&folded, "a rust block holds a copy");
    }

    #[test]
    fn a_caption_says_where_a_listing_comes_from() {
        complains(LISTING, "has to be the caption");
        let other = CAPTION.replace("run", "child");
        complains(&format!("{other}\n\n{LISTING}"), "has to be the caption");
        let whole = LISTING.replace(":run", "");
        complains(&format!("{CAPTION}\n\n{whole}"), "one anchor");
    }

    #[test]
    fn a_session_begins_after_the_head_of_its_snapshot() {
        let text =
            "```console\n{{#include ../../tests/transcripts/a.snap}}\n```";
        complains(text, "from its line 4 on");
    }

    #[test]
    fn long_lines_are_found() {
        complains(&format!("```sh\n{}\n```", "a".repeat(81)), "columns");
    }

    #[test]
    fn every_file_is_in_the_summary() {
        let summary = Chapter::new("SUMMARY.md", "[One](one.md)".to_owned());
        let one = Chapter::new("one.md", String::new());
        let two = Chapter::new("two.md", String::new());
        let found = unlisted(&[summary, one, two]);
        assert_eq!(found, ["book/text/two.md:1: SUMMARY.md does not list it"]);
    }

    #[test]
    fn paths_start_at_the_root() {
        assert_eq!(from_root("../generated/a.svg"), "book/generated/a.svg");
        assert_eq!(from_root("../../tests/a"), "tests/a");
        assert_eq!(from_root("./a.md"), "book/text/a.md");
    }
}
