//! The newc reader on any bytes: it terminates, and members that it accepts survive writing and reading.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use repot_cli::newc::{Item, Reader, Writer};

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes, 0);
    let mut writer = Writer::new(Vec::new());
    let mut members = Vec::new();
    while let Ok(Some(item)) = reader.next_item() {
        let Item::Member(header) = item else { continue };
        let mut data = Vec::new();
        if reader.read_to_end(&mut data).is_err() {
            break;
        }
        // The writer refuses a symbolic link called TRAILER!!!.
        if writer.append(&header, &data).is_ok() {
            members.push((header, data));
        }
    }
    let archive = writer.finish().expect("writing to memory succeeds");
    let mut reader = Reader::new(&archive[..], 0);
    for (header, data) in members {
        let item = reader.next_item().expect("our own archive is valid").expect("no member is missing");
        let mut again = Vec::new();
        reader.read_to_end(&mut again).expect("our own archive is valid");
        assert_eq!((item, again), (Item::Member(header), data));
    }
});
