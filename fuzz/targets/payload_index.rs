//! The index of a payload. The checksum in its last line is made to fit, or nothing behind it would be
//! reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot::payload::index::{Index, xxh64};

fuzz_target!(|bytes: &[u8]| {
    let _ = Index::parse(bytes);
    let mut text = bytes.to_vec();
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let sum = xxh64(&text);
    text.extend(format!("xxh64={sum:016x}\n").bytes());
    let Ok(index) = Index::parse(&text) else { return };
    for number in 0..index.frames.len() {
        let frame = &index.frames[number];
        assert!(frame.chunks().end() < &index.chunks.len());
        let _ = (index.pieces(number), index.piece(number));
    }
    assert_eq!(Index::parse(index.text().as_bytes()), Ok(index));
});
