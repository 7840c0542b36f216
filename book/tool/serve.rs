//! The book as it grows: built anew, and the page with it, when what it is
//! made of changes.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use notify_debouncer_mini::notify::{self, PollWatcher, RecursiveMode};
use notify_debouncer_mini::{Config, new_debouncer_opt};
use tower_http::services::ServeDir;
use tower_livereload::LiveReloadLayer;

use crate::{build, diffs, generated, say};

/// How long changes may follow one another, as when an editor writes a file,
/// before the book is built.
const PAUSE: Duration = Duration::from_millis(300);

/// Serves the built `pages` until it is interrupted.
pub fn serve(root: &Path, pages: &Path, port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot serve on port {port}"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let reload = LiveReloadLayer::new();
    let reloader = reload.reloader();
    let (changed, changes) = mpsc::channel();
    // Polling: inotify(7) also tells when a file is read, as building does.
    let poll = notify::Config::default().with_poll_interval(PAUSE);
    let config = Config::default().with_timeout(PAUSE).with_notify_config(poll);
    let mut watcher = new_debouncer_opt::<_, PollWatcher>(config, changed)?;
    let steps = diffs::STEPS.map(|step| format!("{step}/src"));
    let folders = ["book", "tests", "doctor/src"].map(str::to_owned);
    for folder in folders.iter().chain(&steps) {
        let folder = root.join(folder);
        watcher
            .watcher()
            .watch(&folder, RecursiveMode::Recursive)
            .with_context(|| format!("cannot watch {}", folder.display()))?;
    }
    let watched = root.to_owned();
    thread::spawn(move || {
        for _ in changes {
            let built = generated::write(&watched).and_then(|()| {
                build(&watched)?;
                Ok(())
            });
            match built {
                Ok(()) => reloader.reload(),
                Err(error) => _ = writeln!(io::stderr(), "book: {error:#}"),
            }
        }
    });
    say(&format!("the book is at http://{address}, until Ctrl-C"));
    let pages = Router::new().fallback_service(ServeDir::new(pages));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, pages.layer(reload)).await?;
        Ok(())
    })
}
