//! The caller's terminal in front of the one inside.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Result;
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};

use super::line::Order;

/// It, when that is where the command's input comes from and where its output
/// goes. In a pipeline it stays as it is, for the others.
pub struct Terminal {
    settings: Termios,
}

impl Terminal {
    pub fn ours() -> Option<Self> {
        if !isatty(io::stdout()) {
            return None;
        }
        Some(Self { settings: tcgetattr(io::stdin()).ok()? })
    }

    /// For the guard.
    pub fn share(&self) -> Result<OwnedFd> {
        Ok(io::stdin().as_fd().try_clone_to_owned()?)
    }

    /// Its lines and columns.
    pub fn size(&self) -> (u16, u16) {
        let size = tcgetwinsize(io::stdout());
        size.map_or((24, 80), |size| (size.ws_row, size.ws_col))
    }

    /// The same, for the one inside.
    pub fn resize(&self) -> Order {
        let (lines, columns) = self.size();
        Order::Resize(lines, columns)
    }

    /// Every key for the one inside, Ctrl-C among them.
    pub fn make_raw(&self) {
        let mut raw = self.settings.clone();
        raw.make_raw();
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
    }

    /// As it was.
    pub fn restore(&self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.settings);
    }
}
