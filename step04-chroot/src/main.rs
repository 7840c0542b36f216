//! step04-chroot

fn main() {}
