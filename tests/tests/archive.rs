//! The parsers of a payload, with valid and with arbitrary bytes.
use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;
use repot::payload::archive::{self, Source};
use repot::payload::index::{Index, xxh64};
use repot_tests::payload_image::{archive as archive_of, pack};
use repot_tests::stage::Stage;
use repot_tests::trees::one_of_each;

/// All entries of an archive, or the first error.
fn read_all(mut bytes: &[u8]) -> Result<usize, repot::error::Fault> {
    let mut count = 0;
    while let Some(entry) = archive::entry(&mut bytes)? {
        count += 1;
        if entry.kind == archive::Kind::File {
            archive::contents(&mut bytes, entry.size, |_| Ok(()))?;
        }
    }
    Ok(count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_an_index_or_none(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Index::parse(&bytes);
    }

    /// A changed index is refused, or it is written again as it was read.
    #[test]
    fn an_index_has_one_form(at in 0usize..440, with in any::<u8>()) {
        let (sum, digest) = ("5b".repeat(8), "5b".repeat(32));
        let mut text = format!(
            "format=2\nentries=5\nbytes=900\npages=3 2 1\npaged=900 1200\ninodes=5\nlargest=500\nxattrs=0\nchunks=2\nframes=4\n\
             chunk=000000 262144 {sum} {digest}\nchunk=000001 77 {sum} {digest}\nframe=0 100 1024\nframe=100 44 512\nmore=144 262000 8192\n\
             frame=262144 77 1024\n"
        ).into_bytes();
        let summed = |text: &[u8]| [text, format!("xxh64={:016x}\n", xxh64(text)).as_bytes()].concat();
        prop_assert!(Index::parse(&summed(&text)).is_ok());
        let at = at % text.len();
        text[at] = with;
        let text = summed(&text);
        if let Ok(index) = Index::parse(&text) {
            prop_assert_eq!(index.text().into_bytes(), text);
        }
    }

    #[test]
    fn any_bytes_are_an_archive_or_none(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read_all(&bytes);
    }

    /// Names in a changed archive never lead out of the root.
    #[test]
    fn a_changed_archive_stays_below_the_root(at in any::<prop::sample::Index>(), with in any::<u8>(), fix in any::<bool>()) {
        let mut bytes = sample();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if fix {
            checksum(&mut bytes, at / 512 * 512);
        }
        let mut source = &bytes[..];
        while let Ok(Some(entry)) = archive::entry(&mut source) {
            for name in entry.path.split(|byte| *byte == b'/') {
                prop_assert!(name != b".." && name != b"." && !name.contains(&0));
                prop_assert!(!name.is_empty() || entry.path.is_empty());
            }
            if entry.kind == archive::Kind::File && archive::contents(&mut source, entry.size, |_| Ok(())).is_err() {
                break;
            }
        }
    }
}

/// A small archive by the tool, PAX records included.
fn sample() -> Vec<u8> {
    static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let fill = |stage: &Stage| {
        stage.plant(&one_of_each());
        let _ = fs::remove_file(stage.path("a/large"));
        let _ = fs::remove_file(stage.path("a/sparse"));
    };
    SAMPLE
        .get_or_init(|| {
            let mut bytes = archive_of(&pack(&["mode=move"], fill).image);
            bytes.truncate(16 << 10);
            bytes
        })
        .clone()
}

fn checksum(bytes: &mut [u8], at: usize) {
    let Some(block) = bytes.get_mut(at..at + 512) else { return };
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// The readers return the same bytes in pieces of any size.
#[test]
fn pieces_of_any_size_are_the_same() {
    struct Slowly<'a>(&'a [u8], usize);
    impl Source for Slowly<'_> {
        fn next(&mut self, most: usize) -> Result<&[u8], repot::error::Fault> {
            let (piece, rest) = self.0.split_at(most.min(self.1).min(self.0.len()));
            self.0 = rest;
            Ok(piece)
        }
    }
    let bytes = sample();
    let names = |source: &mut dyn Source| {
        let mut names = BTreeSet::new();
        while let Ok(Some(entry)) = archive::entry(source) {
            names.insert(entry.path);
            if entry.kind == archive::Kind::File {
                let _ = archive::contents(source, entry.size, |_| Ok(()));
            }
        }
        names
    };
    let whole = names(&mut &bytes[..]);
    assert!(whole.len() > 5);
    for size in [1, 7, 511, 512, 513] {
        assert_eq!(names(&mut Slowly(&bytes, size)), whole, "{size}");
    }
}
