//! The kernel log, in which the kernel reports that it could not unpack the initramfs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot::facts::unpacked::complaints;

fuzz_target!(|bytes: &[u8]| {
    assert!(complaints(bytes).len() <= 8);
});
