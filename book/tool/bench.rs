//! A picture of the last run of `cargo workshop bench`, from its data.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::pictures;

/// What the command writes.
const DATA: &str = "workshop/bench/last.json";

/// Whom the picture shows: as the data calls them, as it does, in which fill.
const SHOWN: [(&str, &str, &str); 10] = [
    ("the floor, in C", "the floor, in C", "$kernel"),
    ("unshare", "unshare", "$host"),
    ("step06, static", "step06, static", "$inside"),
    ("step06", "step06", "$inside"),
    ("step07, static", "step07, static", "$inside"),
    ("step07", "step07", "$inside"),
    ("bubblewrap", "bubblewrap", "$host"),
    ("the original, in Go", "the Go original", "$host"),
    ("crun", "crun", "$host"),
    ("runc", "runc", "$host"),
];

/// In CSS pixels: what the names take, what the longest bar takes, what the
/// numbers behind it take, a line.
const NAMES: f64 = 124.0;
const LONGEST: f64 = 206.0;
const NUMBERS: f64 = 60.0;
const LINE: f64 = 26.0;

/// The picture, as its file's name in `book/generated` and its content; none
/// as long as nothing has been measured.
pub fn files(root: &Path) -> Result<Vec<(String, String)>> {
    let path = root.join(DATA);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let found: Value =
        serde_json::from_str(&text).with_context(|| DATA.to_owned())?;
    let Some(source) = source(&found) else { return Ok(vec![]) };
    let name = "next-start-up";
    let picture = pictures::generated(root, name, &source).context(DATA)?;
    Ok(vec![(format!("{name}.svg"), picture)])
}

/// Bars, the shortest on top.
fn source(found: &Value) -> Option<String> {
    let all = found["start-up"].as_array()?;
    let ratio = |name: &str| {
        all.iter().find(|one| one["name"] == name)?["ratio"].as_f64()
    };
    let mut bars: Vec<_> = SHOWN
        .iter()
        .filter_map(|(name, title, fill)| Some((ratio(name)?, title, fill)))
        .collect();
    bars.sort_by(|one, other| one.0.total_cmp(&other.0));
    let longest = bars.last()?.0;
    let mut alt = "How long each takes to start a container, run true in it \
                   and end, as a multiple of the first:"
        .to_owned();
    // As wide as all of it: by itself the picture ends where it takes the words
    // to end, which are wider in some fonts.
    let mut drawing = format!(
        "box thickness 0 width {}px height 17px with .w at (0px,0px)\n",
        NAMES + LONGEST + NUMBERS
    );
    for (n, (ratio, title, fill)) in bars.iter().enumerate() {
        let mark = if n == 0 { "" } else { "," };
        let _ = write!(alt, "{mark} {title} {ratio:.1}");
        let y = -LINE * n as f64;
        let width = (LONGEST * ratio / longest).max(2.0);
        let end = NAMES + 6.0 + width;
        let _ = write!(
            drawing,
            "label \"{title}\" small rjust with .e at ({NAMES}px,{y}px)\n\
             box fill {fill} width {width:.1}px height 17px \
             with .w at ({}px,{y}px)\n\
             label \"{ratio:.1}\" small ljust with .w at ({end:.1}px,{y}px)\n",
            NAMES + 4.0,
        );
    }
    Some(format!("// title: Start-up, side by side\n// alt: {alt}.\n{drawing}"))
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn the_shortest_is_on_top_and_strangers_are_left_out() {
        let found = serde_json::json!({ "start-up": [
            { "name": "runc", "ratio": 20.04 },
            { "name": "the floor, in C", "ratio": 1.0 },
            { "name": "somebody", "ratio": 3.0 },
        ]});
        let source = source(&found).expect("a picture");
        let alt = "the first: the floor, in C 1.0, runc 20.0.\n";
        assert!(source.contains(alt), "{source}");
        assert!(!source.contains("somebody"), "{source}");
    }
}
