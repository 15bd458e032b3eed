//! A tree in three numbers: entries, bytes, and a checksum over names, types and contents that does not
//! depend on the order. It shows that a mover lost something, and is cheap enough for a small machine.

use crate::{Done, say};
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The tally of a tree.
#[derive(Default)]
pub(crate) struct Tally {
    entries: u64,
    bytes: u64,
    sum: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:016x}", self.entries, self.bytes, self.sum)
    }
}

pub(crate) fn tell(root: &Path) -> Done {
    Ok(say(&format!("tally {}", of(root)?))?)
}

/// The tally of the tree below `root`, without `root` itself and without mounts below it.
pub(crate) fn of(root: &Path) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let device = root.symlink_metadata()?.dev();
    let mut buffer = vec![0; 256 << 10];
    directory(&mut tally, &mut buffer, root, root, device)?;
    Ok(tally)
}

fn directory(tally: &mut Tally, buffer: &mut [u8], top: &Path, path: &Path, device: u64) -> io::Result<()> {
    for item in path.read_dir()? {
        let path = item?.path();
        let meta = path.symlink_metadata()?;
        let name = path.strip_prefix(top).unwrap_or(&path);
        // The configuration is different in each run of the same tree, and only some images have markers.
        // repot removes /init once it has served.
        let aside = ["etc/repot.conf", ".repot-begin", ".repot-end", "init"]
            .iter()
            .any(|path| name == Path::new(path));
        if meta.dev() != device || aside {
            continue;
        }
        tally.entries += 1;
        let mut sum = mix(mix(0, name.as_os_str().as_bytes()), &(meta.mode() & 0o170_000).to_ne_bytes());
        if meta.is_file() {
            tally.bytes += meta.len();
            sum = content(sum, buffer, &path, &meta)?;
        } else if meta.is_symlink() {
            sum = mix(sum, path.read_link()?.as_os_str().as_bytes());
        }
        tally.sum = tally.sum.wrapping_add(sum);
        if meta.is_dir() {
            directory(tally, buffer, top, &path, device)?;
        }
    }
    Ok(())
}

fn content(mut sum: u64, buffer: &mut [u8], path: &Path, meta: &Metadata) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut left = meta.len();
    while left > 0 {
        let read = file.read(buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sum = mix(sum, &buffer[..read]);
        left -= read as u64;
    }
    Ok(sum)
}

/// A fast checksum, not a strong one: nobody tries to hide lost data here.
fn mix(mut sum: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let mut one = |word: u64| sum = (sum.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    for word in &mut words {
        one(u64::from_ne_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]));
    }
    for byte in words.remainder() {
        one(u64::from(*byte) + 256);
    }
    sum
}
