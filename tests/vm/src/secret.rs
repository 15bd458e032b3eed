//! Markers that are looked for in the memory of a guest, from outside.
//!
//! Each marker is a constant half, by which it is found, and a half that is different in each and does not
//! compress. The real init overwrites the files in place, so what is found afterwards is memory that somebody
//! else left.

use anyhow::{Context, Result};
use repot_tests::payload_image::noise;
use std::fs::{File, create_dir_all};
use std::io::Read;
use std::path::Path;

/// Bytes of half a marker.
const HALF: usize = 32;
/// Files, and markers in each. One file is larger than a piece of a payload.
const FILES: [usize; 5] = [200, 3000, 20_000, 90_000, 83_408];

/// The number of all markers.
pub(crate) const MARKERS: usize = FILES[0] + FILES[1] + FILES[2] + FILES[3] + FILES[4];

fn constant() -> Vec<u8> {
    noise(0x5ec2_e7e5, HALF)
}

/// Writes the files.
pub(crate) fn plant(folder: &Path) -> Result<()> {
    create_dir_all(folder)?;
    let constant = constant();
    for (seed, (number, markers)) in (77..).zip(FILES.into_iter().enumerate()) {
        let own = noise(seed, markers * HALF);
        let bytes: Vec<u8> = own.chunks(HALF).flat_map(|own| [&constant[..], own].concat()).collect();
        std::fs::write(folder.join(format!("{number}")), bytes)?;
    }
    Ok(())
}

/// The number of markers in a file, at any offset.
pub(crate) fn count(memory: &Path) -> Result<usize> {
    let constant = constant();
    let mut file = File::open(memory).with_context(|| format!("cannot open {}", memory.display()))?;
    let (mut window, mut found) = (Vec::new(), 0);
    loop {
        let kept = window.len().min(HALF - 1);
        window.drain(..window.len() - kept);
        if (&mut file).take(8 << 20).read_to_end(&mut window)? == 0 {
            return Ok(found);
        }
        let first = constant[0];
        found += (0..window.len().saturating_sub(HALF - 1))
            .filter(|&at| window[at] == first && window[at..at + HALF] == constant[..])
            .count();
    }
}
