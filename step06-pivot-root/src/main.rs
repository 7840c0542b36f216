//! step06-pivot-root

fn main() {}
