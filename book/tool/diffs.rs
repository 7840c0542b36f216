//! What each step changes in the one before it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use similar::{Algorithm, ChangeTag, TextDiff};

/// The steps in their order, by package.
pub const STEPS: [&str; 7] = [
    "step01-exec",
    "step02-uts",
    "step03-pid",
    "step04-chroot",
    "step05-proc",
    "step06-pivot-root",
    "step07-cgroups",
];

/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;

/// `02.diff` to `07.diff`.
pub fn files(root: &Path) -> Result<Vec<(String, String)>> {
    let source = |step: &str| {
        let path = root.join(step).join("src/main.rs");
        fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))
    };
    let mut files = Vec::new();
    for (pair, number) in STEPS.windows(2).zip(2..) {
        let text = format!(
            "--- {}/src/main.rs\n+++ {}/src/main.rs\n{}",
            pair[0],
            pair[1],
            diff(&source(pair[0])?, &source(pair[1])?)
        );
        files.push((format!("{number:02}.diff"), text));
    }
    Ok(files)
}

/// The hunks, without the marks that only the book has a use for, but with
/// the line numbers of the files. As git does, each hunk names the item that
/// it begins in.
fn diff(before: &str, after: &str) -> String {
    let (before, after) = (numbered(before), numbered(after));
    let lines = |numbered: &[(usize, String)]| {
        let lines = numbered.iter().map(|(_, line)| format!("{line}\n"));
        lines.collect::<String>()
    };
    let (old, new) = (lines(&before), lines(&after));
    let diff = TextDiff::configure()
        .algorithm(Algorithm::Patience)
        .diff_lines(&old, &new);
    let mut text = String::new();
    for group in diff.grouped_ops(CONTEXT) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        let (old, new) = (first.old_range().start, first.new_range().start);
        text += &format!(
            "@@ -{},{} +{},{} @@{}\n",
            before.get(old).map_or(0, |(number, _)| *number),
            last.old_range().end - old,
            after.get(new).map_or(0, |(number, _)| *number),
            last.new_range().end - new,
            item_at(&before[..old])
        );
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            text += format!("{sign}{}", change.value()).trim_end();
            text.push('\n');
        }
    }
    text
}

/// The lines of a source with their numbers, without the marks.
fn numbered(source: &str) -> Vec<(usize, String)> {
    let lines = (1..).zip(source.lines().map(str::to_owned));
    lines.filter(|(_, line)| !line.trim().starts_with("// ANCHOR")).collect()
}

/// The last item that begins in these lines, after a blank.
fn item_at(lines: &[(usize, String)]) -> String {
    let starts = ["fn ", "pub fn ", "impl ", "struct ", "enum ", "const "];
    let item = lines.iter().rev().find_map(|(_, line)| {
        starts.iter().any(|start| line.starts_with(start)).then_some(line)
    });
    item.map_or_else(String::new, |line| format!(" {line}"))
}

#[cfg(test)]
mod tests {
    use super::diff;

    #[test]
    fn marks_are_left_out_and_lines_keep_their_numbers() {
        let before = "fn run() {\n    one();\n}\n";
        let after = "// ANCHOR: run\nfn run() {\n    two();\n}\n\
                     // ANCHOR_END: run\n";
        assert_eq!(
            diff(before, after),
            "@@ -1,3 +2,3 @@\n fn run() {\n-    one();\n+    two();\n }\n"
        );
    }

    #[test]
    fn a_hunk_names_the_item_that_it_begins_in() {
        let body: String = (1..9).map(|n| format!("    f({n});\n")).collect();
        let before = format!("fn child() {{\n{body}}}\n");
        let after = before.replace("f(8)", "g(8)");
        assert!(
            diff(&before, &after).starts_with("@@ -6,5 +6,5 @@ fn child() {\n")
        );
    }

    #[test]
    fn nothing_changes() {
        assert_eq!(diff("a\n", "// ANCHOR: a\na\n"), "");
    }
}
