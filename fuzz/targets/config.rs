//! `/etc/repot.conf`. The image's requirements survive any command line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot::options::Options;
use repot::options::cmdline;

fuzz_target!(|bytes: &[u8]| {
    let alone = Options::read(Some(bytes), &[]);
    assert!(alone.warnings.iter().all(|warning| warning.is_ascii()), "{:?}", alone.warnings);
    let line = cmdline::parse(b"repot.mode=stay repot.payload=no repot.nonsense");
    let both = Options::read(Some(bytes), &line);
    assert!(alone.payload.iter().all(|digest| both.payload.contains(digest)));
});
