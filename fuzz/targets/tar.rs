//! A tar archive as a source: its tree can be written as an archive that our reader accepts.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use repot_cli::newc::{Reader, Writer};
use repot_cli::source::{self, oci::Choice};

fuzz_target!(|bytes: &[u8]| {
    let scratch = std::env::temp_dir();
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("a temporary file");
    let Ok(source) = source::open(file.path(), &Choice::default(), &scratch) else { return };
    let mut writer = Writer::new(Vec::new());
    if source.tree.write(&mut writer).is_err() {
        return;
    }
    let archive = writer.finish().expect("writing to memory succeeds");
    let mut reader = Reader::new(&archive[..], 0);
    while reader.next_item().expect("our own archive is valid").is_some() {}
});
