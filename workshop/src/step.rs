//! The seven steps, as they are named on the command line.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, anyhow};

/// The packages, in their order.
const NAMES: [&str; 7] = [
    "step01-exec",
    "step02-uts",
    "step03-pid",
    "step04-chroot",
    "step05-proc",
    "step06-pivot-root",
    "step07-cgroups",
];

/// One of them. Typed, it is `5`, `05`, `step05` or `step05-proc`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Step(usize);

impl Step {
    /// Where everybody starts.
    pub const FIRST: Self = Self(1);

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=NAMES.len()).map(Self)
    }

    /// 1 to 7.
    pub fn number(self) -> usize {
        self.0
    }

    /// The one after it.
    pub fn next(self) -> Option<Self> {
        (self.0 < NAMES.len()).then(|| Self(self.0 + 1))
    }

    /// Its package, and the folder of that.
    pub fn package(self) -> &'static str {
        NAMES[self.0 - 1]
    }
}

impl FromStr for Step {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.trim_start_matches("step");
        let number = number.split('-').next().unwrap_or_default();
        number
            .parse()
            .ok()
            .filter(|number| (1..=NAMES.len()).contains(number))
            .map(Self)
            .filter(|step| !text.contains('-') || text == step.package())
            .ok_or_else(|| anyhow!("the steps are 01 to 07"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step{:02}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Step;

    #[test]
    fn as_it_is_typed() {
        for text in ["5", "05", "step05", "step05-proc"] {
            let step: Step = text.parse().expect("a step");
            assert_eq!(step.package(), "step05-proc", "{text}");
        }
        for text in ["", "0", "8", "step", "five", "step05-pid", "-5"] {
            assert!(text.parse::<Step>().is_err(), "{text}");
        }
    }
}
