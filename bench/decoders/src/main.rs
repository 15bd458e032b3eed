//! Decompresses an archive of frames with one decoder and discards the output, for `cargo xtask bench
//! decoders`.
//!
//! Built without a decoder it only reads. The benchmark subtracts what that takes.

use std::error::Error;
use std::fs::File;

/// Bytes that are read and decompressed at once, as in the init.
const BUFFER: usize = 128 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let archive = std::env::args_os().nth(1).ok_or("an archive is wanted")?;
    let bytes = decompress(File::open(archive)?, &mut vec![0; BUFFER])?;
    println!("bench bytes {bytes}");
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    println!("bench memory {}", peak.trim().trim_end_matches(" kB"));
    Ok(())
}

/// The C library, or its Rust port with the same interface.
#[cfg(any(feature = "c", feature = "port"))]
fn decompress(mut archive: File, output: &mut [u8]) -> Result<usize, Box<dyn Error>> {
    use std::io::Read;
    use zstd_safe::{DCtx, InBuffer, OutBuffer, get_error_name};
    let mut context = DCtx::try_create().ok_or("no memory")?;
    let mut input = vec![0; BUFFER];
    let mut bytes = 0;
    loop {
        let length = archive.read(&mut input)?;
        if length == 0 {
            return Ok(bytes);
        }
        let mut rest = InBuffer::around(&input[..length]);
        let mut full = false;
        while full || rest.pos() < length {
            let mut out = OutBuffer::around(&mut *output);
            context.decompress_stream(&mut out, &mut rest).map_err(get_error_name)?;
            let made = out.pos();
            std::hint::black_box(&output[..made]);
            full = made == output.len();
            bytes += made;
        }
    }
}

#[cfg(feature = "ruzstd")]
fn decompress(archive: File, output: &mut [u8]) -> Result<usize, Box<dyn Error>> {
    use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
    use std::io::{BufRead, BufReader, Read};
    let mut archive = BufReader::with_capacity(BUFFER, archive);
    let mut decoder = FrameDecoder::new();
    let mut bytes = 0;
    while !archive.fill_buf()?.is_empty() {
        let mut frame = StreamingDecoder::new_with_decoder(&mut archive, &mut decoder)?;
        loop {
            let made = frame.read(output)?;
            if made == 0 {
                break;
            }
            std::hint::black_box(&output[..made]);
            bytes += made;
        }
    }
    Ok(bytes)
}

#[cfg(not(any(feature = "c", feature = "port", feature = "ruzstd")))]
fn decompress(mut archive: File, output: &mut [u8]) -> Result<usize, Box<dyn Error>> {
    use std::io::Read;
    let mut bytes = 0;
    loop {
        match archive.read(output)? {
            0 => return Ok(bytes),
            read => bytes += read,
        }
    }
}
