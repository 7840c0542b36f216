//! The plans for half a day and for a whole one, summed from the minutes that
//! stand below the headings of the seven chapters.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// How a day goes.
struct Plan {
    /// Its file in `book/generated`.
    name: &'static str,
    /// The sections of a chapter that it has time for; none named means all.
    sections: &'static [&'static str],
    /// A break after that chapter, for so many minutes, called so.
    breaks: &'static [(usize, u32, &'static str)],
    /// The minutes that it may take, with its breaks.
    limit: u32,
}

/// Both leave a little for what comes up in every room: with the longest
/// chapters that the book allows they end five minutes early.
const PLANS: [Plan; 2] = [
    Plan {
        name: "half-day.md",
        sections: &[
            "What still leaks",
            "The idea",
            "The diff",
            "The code",
            "Now it holds",
        ],
        breaks: &[(2, 10, "Break"), (4, 10, "Break"), (6, 5, "Break")],
        limit: 4 * 60,
    },
    Plan {
        name: "full-day.md",
        sections: &[],
        breaks: &[
            (1, 10, "Break"),
            (2, 10, "Break"),
            (3, 45, "Lunch"),
            (4, 10, "Break"),
            (5, 10, "Break"),
            (6, 5, "Break"),
        ],
        limit: 8 * 60,
    },
];

/// A space at which no line ends.
const NO_BREAK: &str = "\u{a0}";

/// The plans as tables, for `book/generated`.
pub fn files(root: &Path) -> Result<Vec<(String, String)>> {
    let chapters = chapters(root)?;
    let file = |plan: &Plan| (plan.name.to_owned(), plan.table(&chapters));
    Ok(PLANS.iter().map(file).collect())
}

/// Sections without minutes, and days that are too long.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let chapters = chapters(root)?;
    let mut wrong = Vec::new();
    for chapter in &chapters {
        for section in &chapter.sections {
            if section.minutes.is_none() {
                wrong.push(format!(
                    "book/text/{}:{}: no minutes below {:?}",
                    chapter.file, section.line, section.title
                ));
            }
        }
    }
    for plan in &PLANS {
        let minutes = plan.with_breaks(&chapters);
        if minutes > plan.limit {
            wrong.push(format!(
                "book/generated/{}: {} with breaks, more than {}",
                plan.name,
                clock(minutes),
                clock(plan.limit)
            ));
        }
    }
    Ok(wrong)
}

impl Plan {
    /// The sections of a chapter that it teaches.
    fn of<'a>(
        &self,
        chapter: &'a Chapter,
    ) -> impl Iterator<Item = &'a Section> {
        let named = self.sections;
        let is_taught = move |section: &&Section| {
            named.is_empty() || named.contains(&section.title.as_str())
        };
        chapter.sections.iter().filter(is_taught)
    }

    fn minutes(&self, chapter: &Chapter) -> u32 {
        self.of(chapter).filter_map(|section| section.minutes).sum()
    }

    fn without_breaks(&self, chapters: &[Chapter]) -> u32 {
        chapters.iter().map(|chapter| self.minutes(chapter)).sum()
    }

    fn with_breaks(&self, chapters: &[Chapter]) -> u32 {
        let breaks = self.breaks.iter().map(|(_, minutes, _)| minutes);
        self.without_breaks(chapters) + breaks.sum::<u32>()
    }

    fn table(&self, chapters: &[Chapter]) -> String {
        let mut text = String::from(
            "| time | minutes | chapter | sections, and their minutes |\n\
             | --- | --- | --- | --- |\n",
        );
        let mut row = |time: &str, minutes: u32, what: &str, sections: &str| {
            writeln!(text, "| {time} | {minutes} | {what} | {sections} |")
                .expect("a string grows");
        };
        let mut time = 0;
        for (number, chapter) in (1..).zip(chapters) {
            let sections = self.of(chapter).map(|section| {
                let (title, minutes) = (&section.title, section.minutes);
                // A line shall break between two sections, not within one.
                format!("{title} {}", minutes.unwrap_or_default())
                    .replace(' ', NO_BREAK)
            });
            let between = format!("{NO_BREAK}· ");
            let sections = sections.collect::<Vec<_>>().join(&between);
            let link = format!("[{}]({})", chapter.title, chapter.file);
            let minutes = self.minutes(chapter);
            let what = format!("{number}. {link}");
            row(&clock(time), minutes, &what, &sections);
            time += minutes;
            for (after, minutes, name) in self.breaks {
                if *after == number {
                    row(&clock(time), *minutes, &format!("*{name}*"), "");
                    time += minutes;
                }
            }
        }
        for (name, minutes) in [
            ("without breaks", self.without_breaks(chapters)),
            ("with breaks", self.with_breaks(chapters)),
        ] {
            let name = format!("**In all, {name}**");
            row(&format!("**{}**", clock(minutes)), minutes, &name, "");
        }
        text
    }
}

/// Hours and minutes, as `3:05`.
fn clock(minutes: u32) -> String {
    format!("{}:{:02}", minutes / 60, minutes % 60)
}

/// A chapter, as far as it matters for how long it takes.
#[derive(Debug)]
struct Chapter {
    file: String,
    title: String,
    sections: Vec<Section>,
}

#[derive(Debug, PartialEq)]
struct Section {
    title: String,
    /// Where its heading stands in the file.
    line: usize,
    minutes: Option<u32>,
}

/// The seven chapters of the steps, in order.
fn chapters(root: &Path) -> Result<Vec<Chapter>> {
    let folder = root.join("book/text");
    let entries = fs::read_dir(&folder)
        .with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| is_chapter(name));
    names.sort();
    if names.len() != 7 {
        bail!("not seven chapters in {}: {names:?}", folder.display());
    }
    let chapter = |file: String| {
        let path = folder.join(&file);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Chapter::new(file, &text))
    };
    names.into_iter().map(chapter).collect()
}

/// `03-pid.md` is one.
fn is_chapter(name: &str) -> bool {
    let number = name.split_once('-').map(|(number, _)| number);
    matches!(number, Some("01" | "02" | "03" | "04" | "05" | "06" | "07"))
        && name.ends_with(".md")
}

impl Chapter {
    fn new(file: String, text: &str) -> Self {
        let mut chapter = Self { file, title: String::new(), sections: vec![] };
        let mut fence: Option<&str> = None;
        // What stands between a heading and its minutes may only be empty.
        let mut is_below_heading = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if let Some(open) = fence {
                // A fence ends with one that is as long, and nothing after it.
                if line.starts_with(open)
                    && line.chars().all(|c| open.starts_with(c))
                {
                    fence = None;
                }
                continue;
            }
            if line.starts_with("```") || line.starts_with("~~~") {
                let rest = line.trim_start_matches(['`', '~']);
                fence = Some(&line[..line.len() - rest.len()]);
                is_below_heading = false;
            } else if let Some(title) = line.strip_prefix("## ") {
                let title = title.to_owned();
                let section = Section { title, line: number, minutes: None };
                chapter.sections.push(section);
                is_below_heading = true;
            } else if let Some(title) = line.strip_prefix("# ") {
                chapter.title = title.to_owned();
                is_below_heading = false;
            } else if !line.is_empty() {
                if let Some(section) = chapter.sections.last_mut()
                    && is_below_heading
                {
                    section.minutes = minutes(line);
                }
                is_below_heading = false;
            }
        }
        chapter
    }
}

/// The number in `<p class="minutes">5 minutes</p>`.
fn minutes(line: &str) -> Option<u32> {
    let line = line.strip_prefix("<p class=\"minutes\">")?;
    let line = line.strip_suffix("</p>")?;
    let (number, unit) = line.split_once(' ')?;
    match (number.parse().ok()?, unit) {
        (1, "minute") => Some(1),
        (number @ 2.., "minutes") => Some(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A book whose chapters have ten sections of so many minutes each.
    fn book(minutes: u32) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("book/text");
        fs::create_dir_all(&folder).unwrap();
        for number in 1..=7 {
            let mut text = format!("# Chapter {number}\n");
            for title in [
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
            ] {
                writeln!(
                    text,
                    "\n## {title}\n\n\
                     <p class=\"minutes\">{minutes} minutes</p>\n\nText."
                )
                .unwrap();
            }
            fs::write(folder.join(format!("0{number}-x.md")), text).unwrap();
        }
        fs::write(folder.join("08-x.md"), "## No chapter").unwrap();
        fs::write(folder.join("teaching.md"), "## No chapter").unwrap();
        root
    }

    #[test]
    fn plans_are_summed() {
        let root = book(5);
        let files = files(root.path()).unwrap();
        let [(half, table), (full, other)] = &files[..] else {
            panic!("two plans: {files:?}");
        };
        let [table, other] =
            [table, other].map(|text| text.replace(NO_BREAK, " "));
        assert_eq!((&half[..], &full[..]), ("half-day.md", "full-day.md"));
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(
            lines[2],
            "| 0:00 | 25 | 1. [Chapter 1](01-x.md) | What still leaks 5 \
             · The idea 5 · The diff 5 · The code 5 · Now it holds 5 |"
        );
        assert!(lines[3].starts_with("| 0:25 | 25 | 2. "));
        assert_eq!(lines[4], "| 0:50 | 10 | *Break* |  |");
        assert!(lines[5].starts_with("| 1:00 | 25 | 3. "));
        assert_eq!(
            lines[12..],
            [
                "| **2:55** | 175 | **In all, without breaks** |  |",
                "| **3:20** | 200 | **In all, with breaks** |  |",
            ]
        );
        assert!(other.contains("| 0:00 | 50 | 1. "), "{other}");
        assert!(other.contains("| *Lunch* |"), "{other}");
        assert!(
            other.ends_with(
                "| **5:50** | 350 | **In all, without breaks** |  |\n\
                 | **7:20** | 440 | **In all, with breaks** |  |\n"
            ),
            "{other}"
        );
        assert_eq!(check(root.path()).unwrap(), [""; 0]);
    }

    #[test]
    fn a_day_can_be_too_long() {
        let wrong = check(book(7).path()).unwrap();
        assert_eq!(
            wrong,
            [
                "book/generated/half-day.md: 4:30 with breaks, more than 4:00",
                "book/generated/full-day.md: 9:40 with breaks, more than 8:00",
            ]
        );
        // 6 minutes each: the one fits, the other does not.
        assert_eq!(check(book(6).path()).unwrap().len(), 1);
    }

    #[test]
    fn a_section_without_minutes_is_named() {
        let root = book(5);
        let path = root.path().join("book/text/03-x.md");
        let text = fs::read_to_string(&path).unwrap();
        let minutes = "<p class=\"minutes\">5 minutes</p>\n\n";
        let text = text.replace(
            &format!("## The code\n\n{minutes}"),
            "## The code\n\nText comes first.\n\n",
        );
        fs::write(&path, text.replace("## Exercise\n\n", "## Exercise\n\nX\n"))
            .unwrap();
        assert_eq!(
            check(root.path()).unwrap(),
            [
                "book/text/03-x.md:21: no minutes below \"The code\"",
                "book/text/03-x.md:45: no minutes below \"Exercise\"",
            ]
        );
    }

    #[test]
    fn only_headings_are_headings() {
        let text = "# A\n## B\n<p class=\"minutes\">1 minute</p>\n\
                    ```sh\n## not this\n```\n### nor this\n\
                    ````\n```\n## nor this\n````\n## C\n\nText.\n\
                    <p class=\"minutes\">3 minutes</p>\n## D\n";
        let chapter = Chapter::new("x.md".to_owned(), text);
        assert_eq!(chapter.title, "A");
        let found: Vec<_> = chapter
            .sections
            .iter()
            .map(|s| (&s.title[..], s.line, s.minutes))
            .collect();
        assert_eq!(
            found,
            [("B", 2, Some(1)), ("C", 12, None), ("D", 16, None)]
        );
    }

    #[test]
    fn minutes_are_written_in_one_way() {
        let of =
            |text: &str| minutes(&format!("<p class=\"minutes\">{text}</p>"));
        assert_eq!(of("12 minutes"), Some(12));
        assert_eq!(of("1 minute"), Some(1));
        for odd in
            ["0 minutes", "1 minutes", "2 minute", "5 min", "five minutes"]
        {
            assert_eq!(of(odd), None, "{odd}");
        }
        assert_eq!(minutes("5 minutes"), None);
    }

    #[test]
    fn seven_chapters_are_needed() {
        let root = book(5);
        fs::remove_file(root.path().join("book/text/03-x.md")).unwrap();
        assert!(files(root.path()).is_err());
    }
}
