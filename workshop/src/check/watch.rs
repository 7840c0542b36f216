//! Waiting, and Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use suite::process::Process;

/// How often to look.
const PAUSE: Duration = Duration::from_millis(200);

/// Ends the check in an orderly way when somebody wants an end: what it has
/// started and made is to go with it.
#[derive(Default)]
pub struct Watch {
    is_over: Arc<AtomicBool>,
    judge: Arc<Mutex<Option<Process>>>,
}

impl Watch {
    /// From now on.
    pub fn begin() -> Result<Self> {
        let watch = Self::default();
        let is_over = Arc::clone(&watch.is_over);
        let judge = Arc::clone(&watch.judge);
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
            .context("cannot catch signals")?;
        thread::spawn(move || {
            for _ in &mut signals {
                is_over.store(true, Ordering::SeqCst);
                end(*judge.lock().unwrap_or_else(PoisonError::into_inner));
            }
        });
        Ok(watch)
    }

    /// The judge that has to end with us, while there is one.
    pub fn guard(&self, judge: Option<Process>) {
        *self.judge.lock().unwrap_or_else(PoisonError::into_inner) = judge;
        if self.is_over() {
            end(judge);
        }
    }

    /// Whether an end is wanted.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Waits a little; says whether an end is wanted.
    pub fn rest(&self) -> bool {
        thread::sleep(PAUSE);
        self.is_over()
    }
}

fn end(judge: Option<Process>) {
    if let Some(judge) = judge {
        let _ = judge.signal(Signal::SIGKILL);
    }
}
