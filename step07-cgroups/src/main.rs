//! step07-cgroups

fn main() {}
