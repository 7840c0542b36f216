//! step03-pid

fn main() {}
