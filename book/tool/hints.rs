//! What the programs say after `hint:`, and the page that explains it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use doctor::Cause;

/// The page that has an entry for each.
const PAGE: &str = "book/text/when-it-fails.md";

/// The tests that provoke each.
const TESTS: &str = "doctor/tests/causes.rs";

/// Where the sentences before the hint stand.
const SYMPTOMS: [&str; 2] = ["doctor/src/stage.rs", "rootfs/src/lib.rs"];

/// What every entry has, in this order; the last names its tests.
const PARTS: [&str; 5] =
    ["**Why.**", "**Way out.**", "**Cost.**", "**Read on.**", "**Test.**"];

/// `hints.md`: a line for each cause, with values as they could be, between
/// anchors of the cause's name.
pub fn files(_root: &Path) -> Result<Vec<(String, String)>> {
    let lines = Cause::examples().into_iter().map(|cause| {
        let name = cause.name();
        format!(
            "<!-- ANCHOR: {name} -->\nhint: {cause}\n\
             <!-- ANCHOR_END: {name} -->\n"
        )
    });
    Ok(vec![("hints.md".to_owned(), lines.collect())])
}

/// Where the page and the causes do not agree, a line each.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let read = |file: &str| {
        fs::read_to_string(root.join(file))
            .with_context(|| format!("cannot read {file}"))
    };
    let symptoms =
        SYMPTOMS.map(read).into_iter().collect::<Result<String>>()?;
    let wrong = complaints(&read(PAGE)?, &read(TESTS)?, &symptoms, Cause::ALL);
    Ok(wrong.into_iter().map(|what| format!("{PAGE}: {what}")).collect())
}

fn complaints(
    page: &str,
    tests: &str,
    symptoms: &str,
    causes: &[&str],
) -> Vec<String> {
    let entries = entries(page);
    let mut wrong = Vec::new();
    for cause in causes {
        let count = entries.iter().filter(|it| it.causes.contains(cause));
        match count.count() {
            0 => wrong.push(format!("no entry for {cause}")),
            1 => {}
            more => wrong.push(format!("{more} entries for {cause}")),
        }
    }
    for entry in entries.iter().filter(|entry| !entry.causes.is_empty()) {
        let mut say = |what: String| {
            wrong.push(format!("`{}` {what}", entry.title));
        };
        for cause in entry.causes.iter().filter(|it| !causes.contains(it)) {
            say(format!("is about {cause}, which no program says"));
        }
        let parts = PARTS.map(|part| entry.text.find(part));
        if !parts.is_sorted() || parts.contains(&None) {
            say(format!("lacks a part, of {}", PARTS.join(" ")));
        }
        let named = named_tests(entry.text);
        if named.is_empty() {
            say("names no test".to_owned());
        }
        for test in &named {
            let body = body(tests, test);
            let provoked = body.as_ref().is_some_and(|body| {
                entry.causes.iter().any(|cause| provokes(body, cause))
            });
            match body {
                None => say(format!("names {test}, which is not in {TESTS}")),
                Some(_) if !provoked => {
                    say(format!("names {test}, which does not provoke it"));
                }
                Some(_) => {}
            }
        }
    }
    for symptom in quoted(page).filter(|it| !symptoms.contains(it)) {
        wrong.push(format!("no program says `{symptom}`"));
    }
    wrong
}

/// What stands below a heading of the third level.
struct Entry<'a> {
    title: &'a str,
    text: &'a str,
    causes: Vec<&'a str>,
}

fn entries(page: &str) -> Vec<Entry<'_>> {
    let sections = page.split("\n### ").skip(1).map(|section| {
        let (title, text) = section.split_once('\n').unwrap_or((section, ""));
        let text = text.split("\n## ").next().unwrap_or_default();
        let includes = text.split("hints.md:").skip(1);
        let causes = includes.filter_map(|it| it.split('}').next()).collect();
        Entry { title, text, causes }
    });
    sections.collect()
}

/// The words in backticks after the last part.
fn named_tests(entry: &str) -> Vec<&str> {
    let last = PARTS[PARTS.len() - 1];
    let names = entry.split_once(last).map_or("", |(_, names)| names);
    let names = names.lines().next().unwrap_or_default();
    names.split('`').skip(1).step_by(2).collect()
}

/// A test's own lines, without white space.
fn body(tests: &str, name: &str) -> Option<String> {
    let start = format!("#[test]\nfn {name}() {{\n");
    let (_, body) = tests.split_once(&start)?;
    let mut body = body.split("\n}\n").next()?.to_owned();
    body.retain(|c| !c.is_whitespace());
    Some(body)
}

/// As the tests themselves find out whether a cause is provoked.
fn provokes(body: &str, cause: &str) -> bool {
    body.contains(&format!("_sees(\"{cause}\","))
        || body.contains(&format!("\\n{cause}:"))
}

/// What the tables say that a program prints: `cannot …` in backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let words = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    words
        .filter(|word| word.starts_with("cannot "))
        .map(|word| word.trim_end_matches(['…', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TESTS: &str = r#"
#[test]
fn one() {
    let hint = root_sees(
        "NoProc",
        "umount /proc",
    );
}

#[test]
fn two() {
    assert!(output.contains("\nOpenFiles: "));
}

fn no_test() {
    user_sees("NoProc", "");
}
"#;

    const PAGE: &str = "# When it fails

| it says | look at |
| --- | --- |
| `cannot mount …` | here |

## Proc

### There is none

```text
{{#include ../generated/hints.md:NoProc}}
```

**Why.** So.

**Way out.** So.

**Cost.** None.

**Read on.** proc(5).

**Test.** `one`

## Other

### Not about a hint

Words.

### Too many files

```text
{{#include ../generated/hints.md:OpenFiles}}
```

**Why.** So. **Way out.** So. **Cost.** None. **Read on.** proc(5).

**Test.** `two`
";

    fn of(page: &str) -> Vec<String> {
        let symptoms = r#"write!(f, "cannot mount {path:?}")"#;
        complaints(page, TESTS, symptoms, &["NoProc", "OpenFiles"])
    }

    /// The one complaint about the page with this in it replaced.
    #[track_caller]
    fn with(from: &str, to: &str) -> String {
        assert!(PAGE.contains(from));
        let mut wrong = of(&PAGE.replace(from, to));
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        wrong.remove(0)
    }

    #[test]
    fn a_good_page_is_left_alone() {
        assert_eq!(of(PAGE), [""; 0]);
    }

    #[test]
    fn every_cause_has_one_entry() {
        let missing = complaints(PAGE, TESTS, "cannot mount ", &["NoProc"]);
        let gone = "`Too many files` is about OpenFiles, which no program says";
        assert_eq!(missing, [gone]);
        let without = PAGE.split("### Too").next().unwrap();
        assert_eq!(of(without), ["no entry for OpenFiles"]);
        let twice = format!("{PAGE}\n### Again{}", &PAGE[PAGE.len() - 192..]);
        assert_eq!(of(&twice), ["2 entries for OpenFiles"]);
    }

    #[test]
    fn a_test_is_named_and_provokes_it() {
        let name = "`There is none` names";
        assert_eq!(with("`one`", "one"), format!("{name} no test"));
        assert_eq!(
            with("`one`", "`gone`"),
            format!("{name} gone, which is not in doctor/tests/causes.rs")
        );
        assert_eq!(
            with("`one`", "`no_test`"),
            format!("{name} no_test, which is not in doctor/tests/causes.rs")
        );
        assert_eq!(
            with("`one`", "`one`, `two`"),
            format!("{name} two, which does not provoke it")
        );
    }

    #[test]
    fn an_entry_has_its_parts_in_order() {
        let lacks = "`There is none` lacks a part";
        assert!(with("**Cost.** None.\n\n**R", "**R").starts_with(lacks));
        let swapped = with(
            "**Why.** So.\n\n**Way out.** So.\n",
            "**Way out.** So.\n\n**Why.** So.\n",
        );
        assert!(swapped.starts_with(lacks));
    }

    #[test]
    fn a_symptom_is_what_a_program_says() {
        let wrong = with("cannot mount …", "cannot fly …");
        assert_eq!(wrong, "no program says `cannot fly`");
    }

    #[test]
    fn every_cause_is_generated() {
        let files = files(Path::new("")).unwrap();
        for cause in Cause::ALL {
            let start = format!("<!-- ANCHOR: {cause} -->\nhint: ");
            assert!(files[0].1.contains(&start), "{cause}");
        }
    }
}
