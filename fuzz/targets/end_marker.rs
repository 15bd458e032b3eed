//! The end marker of an image, as the init and the tool read it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot::facts::unpacked::marker;

fuzz_target!(|bytes: &[u8]| {
    let _ = marker(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = repot_cli::marker::parse(text);
    }
});
