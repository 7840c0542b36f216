//! The book's pictures: from `book/pictures/NAME.pikchr` to SVG that stands in
//! the page itself, in the page's font and in the colours of its theme.
//!
//! An SVG behind `<img>` would know nothing of the theme that a reader chose.
//! Inside the page it does: black becomes the text's colour, and a colour of
//! the palette in `language.pic` becomes a custom property of the same name,
//! which `looks/pictures.css` sets anew for the dark themes.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use pikchr::{Pikchr, PikchrFlags};

/// Put before every source: the palette and the shapes that all share.
const LANGUAGE: &str = "language.pic";

/// Pikchr's units in one of CSS, so that `16px` in a source are 16px.
const UNITS: f64 = 1.5;

/// The most that fits a phone with text still large enough to read: of 360
/// pixels, 320 are the page's, and 14px then are 11.
const WIDEST: f64 = 400.0;

/// Text of a picture, in CSS pixels: as large as the page's where that is wide
/// enough, and growing with it. Letters of one width look larger than they are.
const TEXT: f64 = 16.0;
const SMALL: f64 = 14.0;

/// What pikchr leaves too little of between a text and an edge beside it.
const ROOM: f64 = 3.0;

/// Every picture, as its file's name in `book/generated` and its content.
pub fn files(root: &Path) -> Result<Vec<(String, String)>> {
    let folder = root.join("book/pictures");
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))
    };
    let language = read(LANGUAGE)?;
    let mut sources = vec![];
    let entries = fs::read_dir(&folder)
        .with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_str().context("a picture's name is not UTF-8")?;
        if let Some(stem) = name.strip_suffix(".pikchr") {
            sources.push((stem.to_owned(), read(name)?));
        }
    }
    sources.sort();
    let draw = |(name, source): (String, String)| {
        let picture = picture(&name, &source, &language)
            .with_context(|| format!("book/pictures/{name}.pikchr"))?;
        Ok((format!("{name}.svg"), picture))
    };
    sources.into_iter().map(draw).collect()
}

/// A picture whose source is made from data.
pub fn generated(root: &Path, name: &str, source: &str) -> Result<String> {
    let language = root.join("book/pictures").join(LANGUAGE);
    let language = fs::read_to_string(&language)
        .with_context(|| format!("cannot read {}", language.display()))?;
    picture(name, source, &language)
}

/// Draws one picture.
fn picture(name: &str, source: &str, language: &str) -> Result<String> {
    let title = comment(source, "title")?;
    let alt = comment(source, "alt")?;
    let text = format!("{language}\n{source}");
    let drawn = Pikchr::render(&text, None, PikchrFlags::default());
    let drawn = match &drawn {
        Ok(drawn) => drawn.rendered(),
        Err(error) => bail!("pikchr cannot draw it:\n{error}"),
    };
    let (head, body) = drawn.split_once('\n').context("an empty picture")?;
    let size = |number: &str| number.parse::<f64>().ok();
    let (width, height) = between(head, "viewBox=\"0 0 ", "\"")
        .and_then(|size| size.split_once(' '))
        .and_then(|(width, height)| Some((size(width)?, size(height)?)))
        .context("a picture without a size")?;
    let css_width = (width / UNITS).ceil();
    ensure!(
        css_width <= WIDEST,
        "{css_width}px wide; on a phone its text is too small above {WIDEST}px",
    );
    let id = format!("picture-{name}");
    let mut lines = vec![
        format!(
            "<svg class=\"picture\" role=\"img\" \
             aria-labelledby=\"{id}-title {id}-alt\" \
             xmlns=\"http://www.w3.org/2000/svg\" \
             viewBox=\"0 0 {width} {height}\" width=\"{:.2}em\">",
            css_width / TEXT,
        ),
        format!("<title id=\"{id}-title\">{}</title>", escape(&title)),
        format!("<desc id=\"{id}-alt\">{}</desc>", escape(&alt)),
        format!("<g font-size=\"{}\">", TEXT * UNITS),
    ];
    let palette = palette(language);
    let body = body.lines().filter(|line| !line.trim().is_empty());
    for line in body {
        lines.push(theme(&letters(line), &palette)?);
    }
    lines.insert(lines.len() - 1, "</g>".to_owned());
    Ok(lines.join("\n") + "\n")
}

/// What the head of a source says about the picture: `// alt: …`, which goes
/// on in the comments below it until a line starts with the next such word.
fn comment(source: &str, name: &str) -> Result<String> {
    let mut lines = source.lines().map_while(|line| line.strip_prefix("//"));
    let first = lines
        .by_ref()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
        .with_context(|| format!("no `// {name}: …` at its head"))?;
    let rest = lines.take_while(|line| line.starts_with("  "));
    let words = [first].into_iter().chain(rest).map(str::trim);
    let text = words.collect::<Vec<_>>().join(" ").trim().to_owned();
    ensure!(!text.is_empty(), "nothing after `// {name}:`");
    Ok(text)
}

/// The palette: `$host = 0xdce9f9` is `rgb(220,233,249)` in a drawing, and
/// has to become `var(--picture-host, #dce9f9)`.
fn palette(language: &str) -> Vec<(String, String)> {
    let colour = |line: &str| {
        let (name, value) = line.strip_prefix('$')?.split_once(" = 0x")?;
        let number = u32::from_str_radix(value, 16).ok()?;
        let [_, red, green, blue] = number.to_be_bytes();
        Some((
            format!("rgb({red},{green},{blue})"),
            format!("var(--picture-{name}, #{value})"),
        ))
    };
    language.lines().filter_map(colour).collect()
}

/// Gives the colours of a line to the theme. One that is not in the palette
/// would be the same in all of them.
fn theme(line: &str, palette: &[(String, String)]) -> Result<String> {
    let mut line = line.replace("rgb(0,0,0)", "currentColor");
    for (rgb, variable) in palette {
        line = line.replace(rgb, variable);
    }
    match between(&line, "rgb(", ")") {
        Some(rgb) => bail!("the colour rgb({rgb}) is not in the palette"),
        None => Ok(line),
    }
}

/// Gives a line's text its size, the page's font for code, and some room
/// between its first letter, or its last, and what it stands beside.
fn letters(line: &str) -> String {
    let small = format!("font-size=\"{}\"", SMALL * UNITS);
    let mut line = line.replace("font-size=\"80%\"", &small);
    for (anchor, room) in [("start", ROOM), ("end", -ROOM)] {
        let anchor = format!("text-anchor=\"{anchor}\"");
        let room = format!("dx=\"{}\" {anchor}", room * UNITS);
        line = line.replace(&anchor, &room);
    }
    if line.contains("font-family=\"monospace\"") {
        let size = if line.contains("font-size=") { "" } else { &small };
        let family = "font-family=\"var(--mono-font, monospace)\"";
        line = line.replace(
            "font-family=\"monospace\"",
            format!("{family} {size}").trim_end(),
        );
    }
    line
}

/// What stands between two marks.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(inner, _)| inner)
}

/// Text as it has to be written in SVG.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "// title: A box\n// alt: A box, and\n//   its name.\n";

    fn draw(source: &str) -> Result<String> {
        picture("test", source, "$host = 0xdce9f9\n")
    }

    #[test]
    fn a_picture_says_what_it_shows() {
        let picture = draw(&format!("{HEAD}box \"a < b\"")).unwrap();
        assert!(picture.contains(">A box</title>"), "{picture}");
        assert!(picture.contains(">A box, and its name.</desc>"), "{picture}");
        assert!(!picture.contains("\n\n"), "{picture}");
    }

    #[test]
    fn a_picture_without_alternative_text_fails() {
        let error = draw("// title: A box\nbox").unwrap_err();
        assert_eq!(error.to_string(), "no `// alt: …` at its head");
        let error = draw("// title: A box\n// alt:\nbox").unwrap_err();
        assert_eq!(error.to_string(), "nothing after `// alt:`");
    }

    #[test]
    fn colours_are_the_themes() {
        let picture = draw(&format!("{HEAD}box fill $host")).unwrap();
        assert!(picture.contains("fill:var(--picture-host, #dce9f9)"));
        assert!(picture.contains("stroke:currentColor"));
        let error = draw(&format!("{HEAD}box color red")).unwrap_err();
        let message = "the colour rgb(255,0,0) is not in the palette";
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn a_picture_too_wide_for_a_phone_fails() {
        let error = draw(&format!("{HEAD}box width 500px")).unwrap_err();
        assert!(error.to_string().starts_with("503px wide"), "{error}");
    }

    /// Of mdBook's themes, the text's colour; those of the dark ones last.
    const THEMES: [&str; 5] =
        ["#000000", "#262625", "#98a3ad", "#bcbdd0", "#c5c5c5"];

    /// How far two colours are apart, by the rule of WCAG 2.
    fn contrast(one: &str, other: &str) -> f64 {
        let luminance = |colour: &str| {
            let number = u32::from_str_radix(&colour[1..], 16).unwrap();
            let [_, channels @ ..] = number.to_be_bytes();
            let [red, green, blue] = channels.map(|channel| {
                let share = f64::from(channel) / 255.0;
                if share <= 0.03928 {
                    share / 12.92
                } else {
                    ((share + 0.055) / 1.055).powf(2.4)
                }
            });
            0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05
        };
        let (one, other) = (luminance(one), luminance(other));
        f64::max(one / other, other / one)
    }

    #[test]
    fn text_can_be_read_in_every_theme() {
        let language = include_str!("../pictures/language.pic");
        let looks = include_str!("../looks/pictures.css");
        for (_, variable) in palette(language) {
            let (name, light) = between(&variable, "var(", ")")
                .and_then(|variable| variable.split_once(", "))
                .unwrap();
            // With JavaScript and without it.
            let setting = format!("{name}: ");
            let dark = looks.split(&setting).skip(1);
            let dark = dark.map(|rest| rest.split(';').next().unwrap());
            let dark: Vec<_> = dark.collect();
            assert_eq!(dark.len(), 2, "{name}");
            assert_eq!(dark[0], dark[1], "{name}");
            // These two are for lines, and for text on the page.
            if name.ends_with("quiet") || name.ends_with("danger") {
                continue;
            }
            for (number, text) in THEMES.into_iter().enumerate() {
                let fill = if number < 2 { light } else { dark[0] };
                let contrast = contrast(text, fill);
                assert!(contrast >= 4.5, "{text} on {name}: {contrast}");
            }
        }
    }
}
