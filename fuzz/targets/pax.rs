//! PAX records as the tool reads them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot_cli::source::pax;

fuzz_target!(|bytes: &[u8]| {
    let Ok(records) = pax::parse(bytes) else { return };
    for (key, value) in &records {
        assert!(key.len() + value.len() < bytes.len());
    }
    let plain = pax::unescaped(bytes);
    assert_eq!(pax::unescaped(&pax::escaped(&plain)), plain);
});
