//! Lines for the participant: coloured on a terminal, plain elsewhere and
//! where NO_COLOR says so. Nobody to read them is no reason to fail.

use std::fmt::Display;
use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use anyhow::Error;
use nix::errno::Errno;
use rustix::termios::tcgetwinsize;

/// What holds.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What does not.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What can wait.
pub const FAINT: Style = Style::new().dimmed();
/// What to look at first.
pub const STRONG: Style = Style::new().bold();

/// How many columns a paragraph may fill: a page's, or fewer where the
/// terminal has fewer.
pub fn width() -> usize {
    let size = tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_col);
    match usize::from(size) {
        0 => PAGE,
        columns => columns.saturating_sub(1).clamp(20, PAGE),
    }
}

/// As in a printed page.
const PAGE: usize = 79;

/// One line on stdout.
pub fn say(line: impl Display) {
    let _ = writeln!(anstream::stdout(), "{line}");
}

/// One line on stderr.
pub fn note(line: impl Display) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// An error, with the doctor's hint if there is one.
pub fn complain(error: &Error) {
    note(format_args!("{BAD}error{BAD:#}: {}", in_words(error)));
    if let Some(hint) = ::doctor::hint(error) {
        note(format_args!("hint: {hint}"));
    }
}

/// What was attempted, and the kernel's answer by name.
pub fn in_words(error: &Error) -> String {
    let parts = error.chain().map(|cause| match errno(cause) {
        Some(errno) => format!("{} ({errno:?})", errno.desc()),
        None => cause.to_string(),
    });
    parts.collect::<Vec<_>>().join(": ")
}

/// The kernel's answer, if this is one.
pub fn errno(cause: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let number = cause.downcast_ref::<io::Error>();
    let number = number.and_then(io::Error::raw_os_error);
    let errno = cause.downcast_ref::<Errno>().copied();
    errno.or(number.map(Errno::from_raw))
}

/// Text in a style.
pub fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}
