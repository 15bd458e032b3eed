//! An image layout: the first bytes split the input into an index, a manifest and layers. Digests are
//! correct.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use repot_cli::newc::Writer;
use repot_cli::source::{self, oci::Choice};
use sha2::{Digest, Sha256};

fuzz_target!(|bytes: &[u8]| {
    let Some((cuts, bytes)) = bytes.split_at_checked(2) else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    fs::create_dir_all(path.join("blobs/sha256")).expect("a directory");
    fs::write(path.join("oci-layout"), "{}").expect("a file");
    let blob = |bytes: &[u8]| {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(path.join("blobs/sha256").join(&hex), bytes).expect("a blob");
        format!("sha256:{hex}")
    };
    let first = bytes.len() * usize::from(cuts[0]) / 256;
    let (below, above) = bytes.split_at(first);
    let layers = format!(r#"[{{"digest":"{}"}},{{"digest":"{}"}}]"#, blob(below), blob(above));
    let manifest = blob(format!(r#"{{"layers":{layers}}}"#).as_bytes());
    let index = if cuts[1] & 1 == 0 {
        format!(r#"{{"manifests":[{{"digest":"{manifest}"}}]}}"#).into_bytes()
    } else {
        bytes.to_vec()
    };
    fs::write(path.join("index.json"), index).expect("a file");
    if let Ok(source) = source::open(path, &Choice::default(), path) {
        let _ = source.tree.write(&mut Writer::new(std::io::sink()));
    }
});
