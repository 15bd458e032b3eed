//! The manifest of extended attributes, line by line, as getfattr writes them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot::manifest::{self, Line};

fuzz_target!(|bytes: &[u8]| {
    for line in bytes.split(|&byte| byte == b'\n') {
        match manifest::line(line) {
            Some(Line::Path(path)) => assert!(path.len() <= line.len()),
            Some(Line::Attribute(name, value)) => assert!(name.len() + value.len() <= line.len()),
            Some(Line::Blank) | None => {}
        }
    }
});
