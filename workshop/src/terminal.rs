//! Lines for the participant: coloured on a terminal, plain elsewhere and
//! where NO_COLOR says so. Nobody to read them is no reason to fail.

use std::fmt::Display;
use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use anyhow::Error;
use nix::errno::Errno;

/// What holds.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What does not.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What can wait.
pub const FAINT: Style = Style::new().dimmed();
/// What to look at first.
pub const STRONG: Style = Style::new().bold();

/// One line on stdout.
pub fn say(line: impl Display) {
    let _ = writeln!(anstream::stdout(), "{line}");
}

/// One line on stderr.
pub fn note(line: impl Display) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// An error: what was attempted, and the kernel's answer by name; then the
/// doctor's hint, if there is one.
pub fn complain(error: &Error) {
    let mut line = styled(BAD, "error");
    for cause in error.chain() {
        let number = cause.downcast_ref::<io::Error>();
        let errno = match number.and_then(io::Error::raw_os_error) {
            Some(number) => Some(Errno::from_raw(number)),
            None => cause.downcast_ref::<Errno>().copied(),
        };
        line += &match errno {
            Some(errno) => format!(": {} ({errno:?})", errno.desc()),
            None => format!(": {cause}"),
        };
    }
    note(line);
    if let Some(hint) = ::doctor::hint(error) {
        note(format_args!("hint: {hint}"));
    }
}

/// Text in a style.
pub fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}
