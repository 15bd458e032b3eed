//! The same archive in frames of several sizes, compressed with several windows.

use super::LEVEL;
use crate::text;
use anyhow::{Context, Result};
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// Frame sizes in MiB. After the last one, everything is one frame.
const FRAMES: [usize; 5] = [1, 2, 4, 8, 16];
/// Window sizes of 1, 2 and 4 MiB, as powers of two.
const WINDOWS: [u32; 3] = [20, 21, 22];
/// The frame and window size of payloads.
const FRAME: usize = 4;
const WINDOW: u32 = 21;

/// Both tables.
pub(super) fn section(tar: &[u8], quick: bool) -> Result<String> {
    let size = |mib: usize| if mib == 0 { tar.len() } else { mib << 20 };
    let frames: Vec<usize> = FRAMES.into_iter().chain([0]).filter(|mib| !quick || *mib == FRAME).collect();
    let name = |mib: &usize| if *mib == 0 { "one".to_owned() } else { format!("{mib} MiB") };
    let table = |what: &str, names: Vec<String>, cells: Vec<String>| {
        let head: Vec<&str> = std::iter::once(what).chain(names.iter().map(String::as_str)).collect();
        text::table(&head, &[std::iter::once("MiB".to_owned()).chain(cells).collect()])
    };
    let by_frame = frames.iter().map(|mib| compressed(tar, size(*mib), WINDOW)).collect::<Result<_>>()?;
    let by_window = WINDOWS.iter().map(|log| compressed(tar, size(FRAME), *log)).collect::<Result<_>>()?;
    Ok(format!(
        "## Frames and windows\n\nThe same tar, cut at different sizes. Each piece is compressed alone, at level {LEVEL} with a \
         window of {} MiB:\n\n{}\nFrames of {FRAME} MiB with different windows:\n\n{}",
        1 << (WINDOW - 20),
        table("frame size", frames.iter().map(name).collect(), by_frame),
        table("window", WINDOWS.map(|log| format!("{} MiB", 1 << (log - 20))).to_vec(), by_window),
    ))
}

/// The size of all frames together, in MiB.
fn compressed(tar: &[u8], frame: usize, window: u32) -> Result<String> {
    let mut compressor = Compressor::new(LEVEL).context("zstd")?;
    compressor.set_parameter(CParameter::WindowLog(window)).context("the window")?;
    let mut bytes = 0;
    for piece in tar.chunks(frame) {
        bytes += compressor.compress(piece).context("cannot compress")?.len();
    }
    Ok(format!("{:.1}", text::number(bytes as u64) / 1_048_576.0))
}
