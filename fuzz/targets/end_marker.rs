//! The end marker of an image.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot::marker::Totals;

fuzz_target!(|bytes: &[u8]| {
    if let Some(totals) = Totals::parse(bytes) {
        assert_eq!(Totals::parse(totals.to_string().as_bytes()), Some(totals));
    }
});
