//! How much memory the machine has.

/// Bytes from `512m` or `1g`, in powers of 1,024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &*text[digits.len()..].to_ascii_lowercase() {
        "" | "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err("the unit is b, k, m or g".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}"))?;
    match number.checked_mul(1 << shift) {
        Some(bytes @ SMALLEST..=LARGEST) => Ok(bytes),
        _ => Err("not between 64m and 64g".to_owned()),
    }
}

/// Less does not boot, with room for a shell.
const SMALLEST: u64 = 64 << 20;

/// More than a room full of laptops has.
const LARGEST: u64 = 64 << 30;
