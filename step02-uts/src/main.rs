//! step02-uts

fn main() {}
