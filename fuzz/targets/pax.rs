//! PAX records and what stands in them. What is read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot::payload::archive::pax;

fuzz_target!(|bytes: &[u8]| {
    let mut text = Vec::new();
    let mut records = Vec::new();
    for record in pax::records(bytes) {
        let Some((key, value)) = record else { return };
        assert!(key.len() + value.len() < bytes.len());
        pax::write(&mut text, key, value);
        records.push(Some((key, value)));
        let _ = repot_cli::source::pax::time(value);
    }
    assert!(pax::records(&text).eq(records));
    let plain = pax::decode(bytes);
    assert_eq!(pax::decode(&pax::encode(&plain)), plain);
});
