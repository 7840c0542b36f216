//! The parts of a step's source, each with its comments: its head up to the
//! first function or type, then one for each function, type, constant.

/// One part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Item<'a> {
    /// As `fn mount_proc`.
    pub name: &'a str,
    /// Its lines, comments and attributes before it among them.
    pub text: &'a str,
}

/// What a file begins with.
pub const HEAD: &str = "the head of the file";

/// The marks that the book shows parts by are for nobody else.
pub fn without_marks(source: &str) -> String {
    let lines = source.split_inclusive('\n');
    lines.filter(|l| !l.trim_start().starts_with("// ANCHOR")).collect()
}

/// Takes a source apart. As rustfmt writes it, what starts at the left edge
/// and is no comment is an item or closes one.
pub fn items(source: &str) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    let (mut name, mut start, mut paragraph, mut at) = (HEAD, 0, 0, 0);
    let mut was_blank = true;
    for line in source.split_inclusive('\n') {
        if was_blank {
            paragraph = at;
        }
        if let Some(found) = begins(line) {
            if start < paragraph {
                items.push(Item { name, text: &source[start..paragraph] });
            }
            (name, start) = (found, paragraph);
        }
        was_blank = line.trim().is_empty();
        at += line.len();
    }
    items.push(Item { name, text: &source[start..] });
    items
}

/// The name of the item that this line begins, if it does.
fn begins(line: &str) -> Option<&str> {
    let item = line.strip_prefix("pub ").unwrap_or(line);
    let is_item = ["fn ", "struct ", "enum ", "const ", "impl "]
        .iter()
        .any(|kind| item.starts_with(kind));
    let end = item.find(['(', '{', ';', ':', '=']).unwrap_or(item.len());
    is_item.then(|| item[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::{HEAD, items, without_marks};

    const SOURCE: &str = "//! One.\n\nuse std::fs;\n\n/// Two.\n#[derive(A)]\n\
                          pub struct Two {\n    a: u8,\n}\n\n\
                          const THREE: u8 = 3;\n\nimpl Two {\n    fn a() {}\n\n\
                          \u{20}   fn b() {}\n}\n\n/// Four.\n\
                          fn four(a: u8) -> u8 {\n    a\n}\n";

    #[test]
    fn every_item_with_its_comments() {
        let items = items(SOURCE);
        let names: Vec<_> = items.iter().map(|item| item.name).collect();
        assert_eq!(
            names,
            [HEAD, "struct Two", "const THREE", "impl Two", "fn four"]
        );
        let text: String = items.iter().map(|item| item.text).collect();
        assert_eq!(text, SOURCE);
        assert!(items[4].text.starts_with("/// Four.\n"));
        assert!(items[1].text.ends_with("}\n\n"));
    }

    #[test]
    fn marks_are_left_out() {
        let marked = "// ANCHOR: a\nfn a() {}\n// ANCHOR_END: a\n";
        assert_eq!(without_marks(marked), "fn a() {}\n");
    }
}
