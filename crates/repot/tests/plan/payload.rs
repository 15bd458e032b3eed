//! Payload images: unpacked or refused, with which limits.

use super::{MIB, mode, options, planned, rehomed, with};
use repot::facts::Facts;
use repot::facts::packed::Found;
use repot::options::{Amount, Mode, Options};
use repot::payload::index::{CHUNK_SIZE, Chunk, Frame, Index, Pages};
use repot::plan::{Method, Refusal, plan};
use repot::walk::survey::Survey;

/// A payload of `mib` MiB in pages, in 40 MiB of chunks; the initramfs holds nothing else.
pub(crate) fn payload(mib: u64) -> impl FnOnce(&mut Facts) {
    move |facts| {
        let chunk = Chunk { size: CHUNK_SIZE, sum: 1, digest: [1; 32] };
        let chunks = vec![chunk; usize::try_from(40 * MIB / CHUNK_SIZE).expect("few")];
        let frame = Frame { start: 0, size: 40 * MIB, content: 2 * mib * MIB, more: false };
        let index = Index {
            entries: 1000,
            bytes: mib * MIB,
            pages: Pages {
                numbers: [mib * MIB / 4096; 3],
                zstd: 43 * mib * MIB / 100,
                lz4: 57 * mib * MIB / 100,
            },
            inodes: 1000,
            chunks,
            frames: vec![frame],
            ..Index::default()
        };
        facts.payload = Found::Index(index, [7; 32]);
        facts.survey = Survey { entries: 165, bytes: 41 * MIB, ..Survey::default() };
    }
}

#[test]
fn a_payload_is_unpacked_or_refused() {
    let with_digests = |digests: &[Option<[u8; 32]>]| options(|o| o.payload = digests.to_vec());
    let (right, wrong) = (Some([7; 32]), Some([8; 32]));
    let uncovered = options(|o| (o.payload, o.uncovered) = (vec![right], vec!["init=".into()]));
    let beside_it = |f: &mut Facts| {
        payload(100)(f);
        f.outside = vec!["sbin".into()];
    };
    // The payload, the configuration, and the text of the refusal.
    let rows: &[(&str, Facts, Options, Option<&str>)] = &[
        ("one", with(payload(100)), Options::default(), None),
        ("the one", with(payload(100)), with_digests(&[right, right]), None),
        ("another", with(payload(100)), with_digests(&[wrong]), Some("payload= requires")),
        ("both", with(payload(100)), with_digests(&[right, wrong]), Some("payload= requires")),
        ("nonsense", with(payload(100)), with_digests(&[None]), Some("a malformed digest")),
        ("none", with(|_| ()), with_digests(&[right]), Some("the image has no payload")),
        ("beside", with(beside_it), with_digests(&[right]), Some("entries beside the payload: sbin")),
        ("init=", with(payload(100)), uncovered, Some("does not cover what /etc/repot.conf sets: init=")),
        ("unread", with(payload(100)), options(|o| o.unread = true), Some("could not be read")),
        ("useless", with(|f| f.payload = Found::Useless("why".into())), Options::default(), Some("why")),
        ("too large", with(payload(900)), Options::default(), Some("more memory")),
        (
            "size",
            with(payload(100)),
            options(|o| o.size = Some(Amount::Exactly(50 * MIB))),
            Some("does not fit"),
        ),
        (
            "inodes",
            with(payload(100)),
            options(|o| o.nr_inodes = Some(Amount::Exactly(9))),
            Some("does not fit"),
        ),
    ];
    for (name, facts, options, refused) in rows {
        match (plan(facts, options), refused) {
            (Ok(plan), None) => assert_eq!(plan.method, Method::Payload, "{name}"),
            (Err(Refusal::Payload(why)), Some(expected)) => assert!(why.contains(expected), "{name}: {why}"),
            (other, _) => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_payload_gets_the_tmpfs_and_the_threads_that_fit() {
    let ample = planned(&with(payload(600)), &Options::default());
    let size: u64 = ample.tmpfs.size.expect("more than half of the memory").parse().expect("a number");
    // The payload, the rest of the initramfs, and a tenth of the memory.
    assert_eq!(size >> 20, 600 + 1 + 102);
    let short = with(|facts| {
        payload(600)(facts);
        facts.memory.available = 562 * MIB;
    });
    let tight = planned(&short, &Options::default());
    assert_eq!((tight.method, tight.threads, tight.warnings.len()), (Method::Payload, 1, 1));
    // 600 MiB, minus 40 MiB of chunks and 16 MiB that the kernel does not report as available.
    for (available, fits) in [(544, true), (543, false)] {
        let shorter = with(|facts| {
            payload(600)(facts);
            facts.memory.available = available * MIB;
        });
        assert_eq!(plan(&shorter, &Options::default()).is_ok(), fits, "{available}");
    }
    for other in [Mode::Bind, Mode::Stay] {
        let plan = planned(&with(payload(100)), &mode(other));
        assert!(plan.warnings.iter().any(|warning| warning.contains("mode=")), "{:?}", plan.warnings);
    }
    // A root that was re-homed before is left alone, whatever its configuration requests.
    let again = with(|facts| {
        payload(100)(facts);
        rehomed(facts);
    });
    assert_eq!(planned(&again, &options(|o| o.payload = vec![None])).method, Method::Stay);
}
