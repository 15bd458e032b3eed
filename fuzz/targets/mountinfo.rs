//! `/proc/self/mountinfo`, whose mount points are any bytes that the kernel escapes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot::facts::mountinfo;

fuzz_target!(|bytes: &[u8]| {
    let mounts = mountinfo::parse(bytes);
    assert!(mounts.len() <= bytes.split(|&byte| byte == b'\n').count());
    assert!(mounts.iter().all(|mount| mount.point.len() + mount.fstype.len() <= bytes.len()));
});
