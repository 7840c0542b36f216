//! step01-exec

fn main() {}
