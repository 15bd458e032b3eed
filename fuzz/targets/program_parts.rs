//! Programs for UEFI and images of Nitro enclaves: the pieces that are found lie in the file, and a section
//! can be put behind them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot_cli::survey::file::parts_of_bytes;
use repot_cli::uki;

fuzz_target!(|bytes: &[u8]| {
    let length = bytes.len() as u64;
    if let Ok(Some(parts)) = parts_of_bytes(bytes) {
        assert!(!parts.image.is_empty());
        for part in parts.image.iter().chain(&parts.kernel).chain(&parts.cmdline) {
            assert!(part.start <= part.end && part.end <= length, "{part:?} of {length}");
        }
    }
    // What was written is read again, unless it is for another profile.
    let profiles = bytes.windows(8).any(|window| window == b".profile");
    if let (Ok(larger), false) = (uki::with_initrd(bytes, b"070701"), profiles) {
        let parts = parts_of_bytes(&larger).expect("our own headers are valid").expect("it has a section .initrd");
        let is_ours = |start: u64| larger.get(usize::try_from(start).unwrap_or(usize::MAX)..);
        assert!(parts.image.iter().any(|part| is_ours(part.start).is_some_and(|rest| rest.starts_with(b"070701"))));
    }
});
