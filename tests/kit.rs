//! The kit's own tests.
fn main() {}
