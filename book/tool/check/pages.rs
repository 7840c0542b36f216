//! The built pages: every link inside leads somewhere, and nothing is loaded
//! from anywhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use scraper::{Html, Selector};

use super::files;

/// Dead links, and what a page would ask the network for.
pub fn check(folder: &Path) -> Result<Vec<String>> {
    let mut pages = BTreeMap::new();
    for path in files(folder, ".html")? {
        let name = path.strip_prefix(folder)?.to_string_lossy().into_owned();
        // Its links are made for the root of a server.
        if name == "404.html" {
            continue;
        }
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        pages.insert(name, Page::new(&text)?);
    }
    let exists = |name: &str| folder.join(name).is_file();
    Ok(dead_links(&pages, &exists))
}

/// What a page has and what it points to.
#[derive(Debug)]
struct Page {
    ids: BTreeSet<String>,
    links: BTreeSet<String>,
    loads: BTreeSet<String>,
}

impl Page {
    fn new(text: &str) -> Result<Self> {
        let html = Html::parse_document(text);
        let all = |selector: &str, attribute: &str| {
            let selector = Selector::parse(selector)
                .map_err(|error| anyhow!("{selector}: {error}"))?;
            let found = html.select(&selector);
            let values = found.filter_map(|found| found.attr(attribute));
            Ok::<_, anyhow::Error>(values.map(str::to_owned).collect())
        };
        let mut loads: BTreeSet<String> = all("[src]", "src")?;
        loads.append(&mut all("link[href]", "href")?);
        Ok(Self {
            ids: all("[id]", "id")?,
            links: all("a[href]", "href")?,
            loads,
        })
    }
}

fn dead_links(
    pages: &BTreeMap<String, Page>,
    exists: &dyn Fn(&str) -> bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, page) in pages {
        for load in &page.loads {
            if load.contains("//") {
                wrong.push(format!("{name}: loads {load} from elsewhere"));
            } else if !exists(load) {
                wrong.push(format!("{name}: loads {load}, which is missing"));
            }
        }
        for link in &page.links {
            let elsewhere = ["https://", "http://", "mailto:"];
            if elsewhere.iter().any(|scheme| link.starts_with(scheme)) {
                continue;
            }
            let (path, id) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() { name } else { path };
            let target = pages.get(path);
            if target.is_none() && !exists(path) {
                wrong.push(format!("{name}: {link} leads nowhere"));
            } else if target.is_some_and(|page| {
                // `#` by itself is the top of a page.
                !id.is_empty() && !page.ids.contains(id)
            }) {
                wrong.push(format!("{name}: {link}: {path} has no {id}"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Page, dead_links};

    fn complaints(body: &str) -> Vec<String> {
        let pages = [("a.html", body), ("b.html", "<h2 id=there>B</h2>")];
        let pages = pages.map(|(name, text)| {
            (name.to_owned(), Page::new(text).expect("valid selectors"))
        });
        dead_links(&BTreeMap::from(pages), &|name| name == "a.css")
    }

    #[test]
    fn links_that_lead_somewhere() {
        let body = "<link href=a.css><p id=here><a href=b.html#there>1</a>\
                    <a href=#here>2</a><a href=b.html>3</a><a href=#>4</a>\
                    <a href=https://example.org>5</a>";
        assert_eq!(complaints(body), [""; 0]);
    }

    #[test]
    fn links_that_lead_nowhere() {
        assert_eq!(
            complaints("<a href=c.html>1</a>"),
            ["a.html: c.html leads nowhere"]
        );
        assert_eq!(
            complaints("<a href=b.html#here>1</a>"),
            ["a.html: b.html#here: b.html has no here"]
        );
        assert_eq!(
            complaints("<a href=#there>1</a>"),
            ["a.html: #there: a.html has no there"]
        );
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        assert_eq!(
            complaints("<script src=https://example.org/a.js></script>"),
            ["a.html: loads https://example.org/a.js from elsewhere"]
        );
        assert_eq!(
            complaints("<img src=a.png>"),
            ["a.html: loads a.png, which is missing"]
        );
    }
}
