//! step05-proc

fn main() {}
