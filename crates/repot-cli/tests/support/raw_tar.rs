//! Members of tar archives, byte by byte: of dialects and with faults that no program of today writes.
#![allow(dead_code, reason = "each test file uses its own part")]

/// A member. Every field can be wrong.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) block: [u8; 512],
    pub(crate) data: Vec<u8>,
}

/// The magic and version of POSIX, and those of GNU tar.
pub(crate) const USTAR: &[u8] = b"ustar\x0000";
pub(crate) const GNU: &[u8] = b"ustar  \0";

impl Raw {
    /// A member of this type with data.
    pub(crate) fn new(kind: u8, name: &[u8], data: &[u8]) -> Raw {
        let mut raw = Raw { block: [0; 512], data: data.to_vec() };
        raw.put(0, name).put(100, b"0000644\0").put(108, b"0000007\0").put(116, b"0000010\0");
        raw.put(124, format!("{:011o}\0", data.len()).as_bytes()).put(136, b"00000000011\0");
        raw.put(257, USTAR);
        raw.block[156] = kind;
        raw
    }

    /// PAX records for the next member, or for all others with the type `g`.
    pub(crate) fn records(kind: u8, records: &[(&str, &[u8])]) -> Raw {
        let mut text = Vec::new();
        for (key, value) in records {
            repot::payload::archive::pax::write(&mut text, key.as_bytes(), value);
        }
        Raw::new(kind, b"PaxHeaders", &text)
    }

    /// A link of either type.
    pub(crate) fn link(kind: u8, name: &[u8], target: &[u8]) -> Raw {
        let mut raw = Raw::new(kind, name, b"");
        raw.put(157, target);
        raw
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Raw {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The same member with other bytes in its header.
    pub(crate) fn with(mut self, at: usize, bytes: &[u8]) -> Raw {
        self.put(at, bytes);
        self
    }

    fn bytes(&self, into: &mut Vec<u8>) {
        let mut block = self.block;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        into.extend(block);
        into.extend(&self.data);
        into.resize(into.len().next_multiple_of(512), 0);
    }
}

/// The members, and the blocks that end an archive.
pub(crate) fn archive(members: &[Raw]) -> Vec<u8> {
    let mut bytes = Vec::new();
    members.iter().for_each(|member| member.bytes(&mut bytes));
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}
