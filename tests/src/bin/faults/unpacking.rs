//! The same for a run that unpacks a payload.

use std::collections::BTreeMap;

use anyhow::Result;
use repot_tests::payload_image::faults::{Sweep, is_bad};

use super::{Choice, finish, run};

pub(crate) fn sweep(choice: &Choice) -> Result<()> {
    let sweep = Sweep::new();
    let results = run(choice, sweep.points().into_iter(), &|point| sweep.run(point), is_bad)?;
    let mut words: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, outcome) in &results {
        *words.entry(outcome.word()).or_default() += 1;
    }
    let words: Vec<_> = words.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let sums = format!("{} faults: {}", results.len(), words.join(", "));
    finish(choice, "docs/faults-payload.md", TEXT, &results, &sums, is_bad)
}

const TEXT: &str = "# Fault injection: unpacking a payload\n\n`cargo xtask faults --payload` runs the static `init-payload` as PID \
     1 of a private namespace, on a tmpfs with what the kernel unpacks of a small image: a payload with an entry of every kind, \
     and a mount. It makes each system call of the init fail once, with each of five errors. Each run must end within ten \
     seconds. If the call failed before the first chunk was freed, an init must run on the complete tree in its own tmpfs, with \
     the mount in place (moved). If it failed later, the run may also end without an init and follow `onerror=` (onerror), \
     because freed chunks cannot be restored. The log must then name the call and the error, and, while chunks are being \
     unpacked, the chunk. No init may run on part of a tree. The table counts the outcomes.";
