//! Where the book says how a property is to be had.

/// The section of the book for each row of the table: file and heading.
const SECTIONS: [(&str, &str); 22] = [
    ("exit status", "01-exec.html#statuses-handed-on"),
    ("arguments", "01-exec.html#forget-the-dashes"),
    ("streams", "01-exec.html#two-calls-start-a-program"),
    ("signals at the start", "01-exec.html#what-command-does-for-us"),
    ("own host name", "02-uts.html#a-namespace"),
    ("own PIDs", "03-pid.html#born-there-not-moved-there"),
    ("ends with its launcher", "03-pid.html#who-dies-with-whom"),
    ("ends with its command", "03-pid.html#who-dies-with-whom"),
    ("TERM arrives", "01-exec.html#signals-passed-on"),
    ("own files", "04-chroot.html#the-new-root"),
    ("own environment", "04-chroot.html#the-environment"),
    ("no new privileges", "04-chroot.html#no-new-privileges"),
    ("own /proc", "05-proc.html#a-proc-in-the-new-root"),
    ("own mount table", "05-proc.html#a-table-of-our-own"),
    ("no escape by chroot", "06-pivot-root.html#the-swap"),
    ("no leaked directory", "06-pivot-root.html#what-was-left-open"),
    ("own /dev", "06-pivot-root.html#a-small-dev"),
    (
        "at most ten processes",
        "07-cgroups.html#making-the-groups-and-limiting-them",
    ),
    ("at most 50 MB", "07-cgroups.html#making-the-groups-and-limiting-them"),
    ("own cgroup tree", "07-cgroups.html#joining"),
    ("own System V IPC", "02-uts.html#exercise"),
    ("own network", "where-next.html#a-network-of-its-own"),
];

/// Where to read about that row.
pub fn of(row: &str) -> Option<&'static str> {
    SECTIONS.iter().find(|(name, _)| *name == row).map(|(_, place)| *place)
}

/// Where to read about programs that run nothing.
pub const FIRST: &str = "01-exec.html#one-program-two-halves";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use suite::PROPERTIES;

    use super::{FIRST, SECTIONS, of};

    /// A heading as mdBook links to it.
    fn slug(heading: &str) -> String {
        heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || "_- ".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    }

    #[test]
    fn every_row_has_one() {
        for row in PROPERTIES {
            assert!(of(row.name).is_some(), "{}", row.name);
        }
    }

    #[test]
    fn each_is_in_the_book() {
        let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../book/text");
        let sections = SECTIONS.iter().map(|(_, place)| *place);
        for place in sections.chain([FIRST]) {
            let (page, heading) = place.split_once('#').expect("a heading");
            let page = page.replace(".html", ".md");
            let text = fs::read_to_string(book.join(&page)).expect("a page");
            let is_there =
                text.lines().filter(|line| line.starts_with("##")).any(
                    |line| slug(line.trim_start_matches('#').trim()) == heading,
                );
            assert!(is_there, "{place}");
        }
    }
}
