//! Segments before and behind the image of a scenario.

use crate::scenario::Scenario;
use anyhow::{Context, Result};
use repot_cli::codec::{Compression, Encoder};
use repot_harness::place;
use std::collections::BTreeMap;
use std::fs::{create_dir_all, write};
use std::path::Path;

/// The contents of a file that is a copy of the probe.
const PROBE: &str = "PROBE";

/// Adds the segments of a scenario to its archive.
pub(crate) fn add(scenario: &Scenario, archive: &Path, probe: &Path) -> Result<()> {
    if scenario.front.is_empty() && scenario.behind.is_empty() {
        return Ok(());
    }
    let image = std::fs::read(archive)?;
    let front = segment(scenario, "front", &scenario.front, probe)?;
    let behind = segment(scenario, "behind", &scenario.behind, probe)?;
    let mut all = Vec::new();
    for mut part in [front, image, behind] {
        // An uncompressed archive begins at a multiple of 4; boot loaders pad to a block.
        part.resize(part.len().next_multiple_of(512), 0);
        all.append(&mut part);
    }
    Ok(write(archive, all)?)
}

fn segment(
    scenario: &Scenario,
    side: &str,
    files: &BTreeMap<String, String>,
    probe: &Path,
) -> Result<Vec<u8>> {
    let root = place::fresh(&format!("boots/segments/{}/{side}", scenario.name))?;
    if files.is_empty() {
        return Ok(Vec::new());
    }
    for (path, contents) in files {
        let path = root.join(path);
        create_dir_all(path.parent().unwrap_or(&root))?;
        if contents == PROBE {
            std::fs::copy(probe, &path)?;
        } else {
            write(&path, contents)?;
        }
    }
    let mut encoder = Encoder::new(Vec::new(), Compression::None, 0)?;
    repot_cli::source::directory::pack(&root, &mut encoder).context("packing")?;
    Ok(encoder.finish()?)
}
