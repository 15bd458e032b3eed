//! Builds the images: archives member by member, and compressed as asked.

use anyhow::{Context, Result, ensure};
use repot_cli::codec::{Compression, Encoder};
use repot_cli::newc::{Header, Writer};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// A member of an archive.
#[derive(Debug, Clone)]
pub(super) struct Member {
    header: Header,
    data: Vec<u8>,
}

impl Member {
    pub(super) fn new(name: &str, mode: u32, data: &[u8]) -> Member {
        let header = Header { name: name.into(), mode, nlink: 1, ..Header::default() };
        Member { header, data: data.to_vec() }
    }

    /// One of two names of the file with this inode number.
    pub(super) fn linked(name: &str, mode: u32, ino: u32, data: &[u8]) -> Member {
        let mut member = Member::new(name, mode, data);
        (member.header.ino, member.header.nlink) = (ino, 2);
        member
    }

    pub(super) fn device(name: &str, major: u32, minor: u32) -> Member {
        let mut member = Member::new(name, 0o020_666, b"");
        (member.header.rdevmajor, member.header.rdevminor) = (major, minor);
        member
    }
}

/// What every image contains.
#[derive(Debug)]
pub(super) struct Parts {
    /// The program that reports what the kernel made of the image.
    pub(super) probe: Vec<u8>,
}

impl Parts {
    /// The probe as `/init` with what it needs, and further members.
    pub(super) fn base(&self, members: &[Member]) -> Vec<u8> {
        archive(&self.members(members))
    }

    pub(super) fn members(&self, members: &[Member]) -> Vec<Member> {
        self.around(&self.probe, members)
    }

    /// The same with another `/init`.
    pub(super) fn with_init(&self, init: &[u8], members: &[Member]) -> Vec<u8> {
        archive(&self.around(init, members))
    }

    fn around(&self, init: &[u8], members: &[Member]) -> Vec<Member> {
        let folders = ["dev", "mnt", "proc", "sys"].map(|name| Member::new(name, 0o040_755, b""));
        let mut all = vec![Member::new(".", 0o040_755, b""), Member::new("init", 0o100_755, init)];
        all.extend(folders);
        all.extend([Member::device("dev/console", 5, 1), Member::device("dev/null", 1, 3)]);
        all.extend_from_slice(members);
        all
    }
}

pub(super) fn archive(members: &[Member]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for Member { header, data } in members {
        // A vector takes everything.
        let _ = writer.append(header, data);
    }
    writer.finish().unwrap_or_default()
}

/// An archive that ends behind its last member.
pub(super) fn plain(members: &[Member]) -> Vec<u8> {
    let mut bytes = archive(members);
    let name = b"TRAILER!!!";
    if let Some(at) = bytes.windows(name.len()).rposition(|window| window == name) {
        bytes.truncate(at - 110);
    }
    bytes
}

/// The archive with another magic. For that of checksums it gets these, too.
pub(super) fn named(archive: &[u8], magic: &[u8; 6]) -> Vec<u8> {
    let mut bytes = archive.to_vec();
    let mut at = 0;
    while bytes[at..].starts_with(b"070701") {
        let field = |bytes: &[u8], number: usize| {
            let digits = &bytes[at + 6 + 8 * number..][..8];
            usize::from_str_radix(&String::from_utf8_lossy(digits), 16).unwrap_or(0)
        };
        let (mode, size, name) = (field(&bytes, 1), field(&bytes, 6), field(&bytes, 11));
        let start = at + (110 + name).next_multiple_of(4);
        let data = bytes[start..start + size].iter().map(|byte| u32::from(*byte));
        let sum = if mode & 0o170_000 == 0o100_000 { data.sum::<u32>() } else { 0 };
        bytes[at..at + 6].copy_from_slice(magic);
        bytes[at + 102..at + 110].copy_from_slice(format!("{sum:08X}").as_bytes());
        at = (start + size).next_multiple_of(4);
    }
    bytes
}

/// The image with a boot configuration behind it (`tools/bootconfig -a`).
pub(super) fn bootconfig(image: &[u8]) -> Vec<u8> {
    let text: &[u8; 16] = b"kernel.quiet\n\0\0\0";
    let sum: u32 = text.iter().map(|byte| u32::from(*byte)).sum();
    let size = [16, 0, 0, 0];
    [image, text, &size, &sum.to_le_bytes(), b"#BOOTCONFIG\n"].concat()
}

/// How an archive is compressed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Compress {
    None,
    Zstd,
    Gzip,
    /// With this check.
    Xz(&'static str),
    Lz4,
    ModernLz4,
}

impl Compress {
    pub(super) fn run(self, archive: &[u8]) -> Result<Vec<u8>> {
        let own = |compression: Compression| {
            let mut encoder = Encoder::new(Vec::new(), compression, compression.default_level())?;
            encoder.write_all(archive)?;
            Ok(encoder.finish()?)
        };
        match self {
            Compress::None => own(Compression::None),
            Compress::Zstd => own(Compression::Zstd),
            Compress::Gzip => own(Compression::Gzip),
            Compress::Lz4 => own(Compression::Lz4),
            Compress::Xz(check) => filter("xz", &["-1", "-c", &format!("--check={check}")], archive),
            Compress::ModernLz4 => filter("lz4", &["-1", "-c"], archive),
        }
    }
}

/// Sends bytes through a program.
fn filter(program: &str, words: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut command = Command::new(program);
    let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (mut to, mut from) = (child.stdin.take().context("stdin")?, child.stdout.take().context("stdout")?);
    let mut output = Vec::new();
    std::thread::scope(|scope| {
        // Ends with an error if the program ends early, and then its status says why.
        scope.spawn(move || to.write_all(input));
        from.read_to_end(&mut output)
    })?;
    ensure!(child.wait()?.success(), "{program} failed");
    Ok(output)
}
