//! The kernel command line, and the `repot.` keys in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot::options::Options;
use repot::options::cmdline;

fuzz_target!(|bytes: &[u8]| {
    let params = cmdline::parse(bytes);
    for param in &params {
        assert!(param.key.len() + param.value.map_or(0, <[u8]>::len) <= bytes.len());
    }
    let options = Options::read(None, &params);
    assert!(options.warnings.len() <= params.len());
    assert!(options.warnings.iter().all(|warning| warning.is_ascii()), "{:?}", options.warnings);
});
