//! What is accepted as a limit is what was written, and within the bounds of
//! the kernel: of step07 and of `cargo workshop vm`.

#![no_main]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use clap::{Args as _, Command};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, missing_docs)]
#[path = "../../../step07-cgroups/src/cgroup.rs"]
mod cgroup;
#[path = "../../../workshop/src/vm/size.rs"]
mod size;

fuzz_target!(|text: &[u8]| {
    let number = number(text);
    assert_eq!(
        parse::<u64>("--pids-limit", "pids_limit", text),
        number.filter(|n| (1..=4_194_304).contains(n)).map(|n| n as u64),
    );
    let bytes = bytes(text);
    assert_eq!(
        parse::<u64>("--memory", "memory", text),
        bytes.filter(|n| (1..=i64::MAX as u128).contains(n)).map(|n| n as u64),
    );
    // The kernel takes a quota from 1 ms on, and ours is of 100 ms.
    if let Some(cpus) = parse::<f64>("--cpus", "cpus", text) {
        let quota = (cpus * 100_000.0).round();
        assert!((1000.0..=819_200_000.0).contains(&quota), "{quota}");
        let written = quota.to_string();
        assert!(written.bytes().all(|b| b.is_ascii_digit()), "{written}");
    }
    if let Ok(text) = std::str::from_utf8(text) {
        let machine = 64 << 20..=64 << 30;
        assert_eq!(
            size::parse_size(text).ok(),
            bytes.filter(|n| machine.contains(n)).map(|n| n as u64),
        );
    }
});

/// What the step makes of `OPTION=text`.
fn parse<T>(option: &str, id: &str, text: &[u8]) -> Option<T>
where
    T: Clone + Send + Sync + 'static,
{
    let mut argument = OsString::from(option);
    argument.push("=");
    argument.push(OsStr::from_bytes(text));
    let command = cgroup::Limits::augment_args(Command::new("step"));
    let found = command.try_get_matches_from([OsStr::new("step"), &argument]);
    found.ok()?.get_one::<T>(id).cloned()
}

/// A number as the standard library reads one: with a plus, without a minus.
fn number(text: &[u8]) -> Option<u128> {
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |n: u128, digit: &u8| {
        n.saturating_mul(10).saturating_add(u128::from(digit - b'0'))
    };
    Some(digits.iter().fold(0, add))
}

/// A number of bytes, with or without a unit.
fn bytes(text: &[u8]) -> Option<u128> {
    let (digits, shift) = match text.split_last()? {
        (b'b' | b'B', digits) => (digits, 0),
        (b'k' | b'K', digits) => (digits, 10),
        (b'm' | b'M', digits) => (digits, 20),
        (b'g' | b'G', digits) => (digits, 30),
        _ => (text, 0),
    };
    number(digits)?.checked_mul(1 << shift)
}
