//! One chapter a step, all in one shape.

use super::text::Chapter;
use crate::diffs::STEPS;

/// The sections of such a chapter, in their order.
const SECTIONS: [&str; 10] = [
    "What still leaks",
    "The idea",
    "The diff",
    "The code",
    "Now it holds",
    "What the kernel saw",
    "Break it",
    "Exercise",
    "Field note",
    "What it leaks",
];

/// Chapters that are missing or out of shape: a section too many, too few or
/// in another place, a chapter without a picture or a folded answer.
pub fn check(chapters: &[Chapter]) -> Vec<String> {
    let mut wrong = Vec::new();
    for step in STEPS {
        let file = format!("{}.md", step.trim_start_matches("step"));
        let Some(chapter) = chapters.iter().find(|c| c.name == file) else {
            wrong.push(format!("there is no book/text/{file}"));
            continue;
        };
        wrong.extend(complaints(chapter));
    }
    wrong
}

fn complaints(chapter: &Chapter) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expected = SECTIONS.iter();
    let mut at = 0;
    for line in chapter.text.split_inclusive('\n') {
        if let Some(section) = line.trim_end().strip_prefix("## ") {
            let wanted = expected.next().copied().unwrap_or("no more sections");
            if section != wanted {
                let what = format!("{section:?}, expected {wanted:?}");
                wrong.push(chapter.complain(at, what));
                return wrong;
            }
        }
        at += line.len();
    }
    if let Some(missing) = expected.next() {
        wrong.push(chapter.complain(0, format!("no section {missing:?}")));
    }
    let picture = chapter.includes.iter().any(|i| i.path.ends_with(".svg"));
    if !picture {
        wrong.push(chapter.complain(0, "no picture"));
    }
    if !chapter.text.contains("<details>\n<summary>") {
        wrong.push(chapter.complain(0, "no answer folded away"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::{Chapter, SECTIONS, complaints};

    fn chapter(sections: &[&str], rest: &str) -> Chapter {
        let sections = sections.iter().map(|name| format!("## {name}\n\n"));
        let text = sections.collect::<String>() + rest;
        Chapter::new("01-exec.md", text)
    }

    const REST: &str = "{{#include ../generated/a.svg}}\n\n\
                        <details>\n<summary>Answer</summary>\n</details>\n";

    #[test]
    fn in_shape() {
        assert_eq!(complaints(&chapter(&SECTIONS, REST)), [""; 0]);
    }

    #[test]
    fn out_of_shape() {
        let name = "book/text/01-exec.md";
        let mut swapped = SECTIONS;
        swapped.swap(1, 2);
        assert_eq!(
            complaints(&chapter(&swapped, REST)),
            [format!("{name}:3: \"The diff\", expected \"The idea\"")]
        );
        assert_eq!(
            complaints(&chapter(&SECTIONS[..9], REST)),
            [format!("{name}:1: no section \"What it leaks\"")]
        );
        assert_eq!(
            complaints(&chapter(&SECTIONS, "")),
            [
                format!("{name}:1: no picture"),
                format!("{name}:1: no answer folded away")
            ]
        );
    }
}
