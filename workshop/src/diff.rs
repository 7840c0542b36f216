//! `cargo workshop diff`: what one step changes in another.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, Error, Result};
use clap::Args;
use similar::{Algorithm, ChangeTag, TextDiff};

use crate::item::{Item, items, without_marks};
use crate::mine::{self, Mine};
use crate::step::Step;
use crate::terminal::{STRONG, say, styled};

/// Which two.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo workshop diff 04 05      what step 5 adds
  cargo workshop diff mine 02    what mine/ lacks of step 2")]
pub struct Options {
    /// The step before, such as 04, or `mine`
    #[arg(value_name = "A")]
    before: Side,
    /// The step after, such as 05, or `mine`
    #[arg(value_name = "B")]
    after: Side,
}

/// A step, or the participant's own crate.
#[derive(Clone, Copy, Debug)]
enum Side {
    Step(Step),
    Mine,
}

impl FromStr for Side {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            mine::NAME => Ok(Self::Mine),
            _ => text.parse().map(Self::Step),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => f.write_str(step.package()),
            Self::Mine => f.write_str(mine::NAME),
        }
    }
}

/// As git has them.
const ADDED: Style = AnsiColor::Green.on_default();
const REMOVED: Style = AnsiColor::Red.on_default();
const PLACE: Style = AnsiColor::Cyan.on_default();

/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;

/// Shows them.
pub fn run(options: &Options) -> Result<ExitCode> {
    show_all(options.before, options.after)?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what the participant's source lacks of a step.
pub fn from_mine(step: Step) -> Result<()> {
    show_all(Side::Mine, Side::Step(step))
}

fn show_all(before: Side, after: Side) -> Result<()> {
    let root = crate::root()?;
    let old = sources(&root, before)?;
    let mut new = sources(&root, after)?;
    // Files that are gone are shown against nothing, as new ones are.
    for name in old.keys() {
        new.entry(name.clone()).or_default();
    }
    if old == new {
        say(format_args!("{before} and {after} are the same"));
    }
    for (name, new) in &new {
        let old = old.get(name).map_or("", |old| old);
        if old != new {
            for (sign, side) in [("---", before), ("+++", after)] {
                say(styled(STRONG, format!("{sign} {side}/src/{name}")));
            }
            show(old, new);
        }
    }
    Ok(())
}

/// The files of a side, by name.
fn sources(root: &Path, side: Side) -> Result<BTreeMap<String, String>> {
    let folder = match side {
        Side::Step(step) => root.join(step.package()).join("src"),
        Side::Mine => Mine::find(root)?.source(),
    };
    let list = || format!("cannot list {}", folder.display());
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(list)? {
        let path = entry.with_context(list)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        files.insert(name.into_owned(), without_marks(&text));
    }
    Ok(files)
}

/// One file, item by item in the order of the side after; what is gone stands
/// where it was.
fn show(old: &str, new: &str) {
    let (old, new) = (items(old), items(new));
    let is_in = |items: &[Item], name| items.iter().any(|it| it.name == name);
    let mut old_ones = old.iter();
    for item in &new {
        if is_in(&old, item.name) {
            for known in old_ones.by_ref() {
                if known.name == item.name {
                    break;
                }
                if !is_in(&new, known.name) {
                    change(known.name, known.text, "");
                }
            }
        }
        let known = old.iter().find(|known| known.name == item.name);
        change(item.name, known.map_or("", |known| known.text), item.text);
    }
    for gone in old_ones.filter(|known| !is_in(&new, known.name)) {
        change(gone.name, gone.text, "");
    }
}

/// One item, if it differs.
fn change(name: &str, old: &str, new: &str) {
    // The blank line that parts it from the next is not its own.
    let (old, new) = (old.trim_end(), new.trim_end());
    let what = match (old, new) {
        _ if old == new => return,
        ("", _) => "new",
        (_, "") => "gone",
        _ => "changed",
    };
    say(styled(PLACE, format!("@@ {name}: {what} @@")));
    let (old, new) = (ended(old), ended(new));
    let diff = TextDiff::configure()
        .algorithm(Algorithm::Patience)
        .diff_lines(&old, &new);
    for (number, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if number > 0 {
            say(styled(PLACE, "@@"));
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let (sign, style) = match change.tag() {
                ChangeTag::Equal => (' ', Style::new()),
                ChangeTag::Delete => ('-', REMOVED),
                ChangeTag::Insert => ('+', ADDED),
            };
            let line = format!("{sign}{}", change.value().trim_end());
            say(styled(style, line.trim_end()));
        }
    }
}

fn ended(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{text}\n") }
}
