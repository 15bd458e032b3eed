//! `repot`, the command.
fn main() {}
