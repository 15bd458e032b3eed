//! A whole image with compressed segments, as `inspect` reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot_cli::ram::Footprint;
use repot_cli::survey::{Survey, segments};

fuzz_target!(|bytes: &[u8]| {
    let mut survey = Survey::default();
    let _ = segments::read(bytes, &mut survey);
    let _ = Footprint::of(survey.tree(), 4096).need(bytes.len() as u64);
});
