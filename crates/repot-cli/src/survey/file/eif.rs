//! Images of AWS Nitro enclaves (EIF): a header with the offsets of sections, in big endian.
//! The format is that of `aws-nitro-enclaves-image-format`.

use anyhow::{Context, Result, bail, ensure};

use super::{Part, Parts, ReadAt};

/// Sections that a header has room for.
const SECTIONS: usize = 32;
/// Bytes of the header.
const HEADER: usize = 28 + 16 * SECTIONS + 8;
/// Bytes of the header of a section: type, flags, size.
const SECTION: usize = 12;

/// The pieces of an image.
pub(super) fn parts(head: &[u8], bytes: u64, read_at: ReadAt<'_>) -> Result<Parts> {
    let header = head.get(..HEADER).context("truncated: an EIF image ends in its header")?;
    let number = |at: usize, size: usize| {
        header[at..at + size].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let count = usize::try_from(number(26, 2))?;
    ensure!(count <= SECTIONS, "corrupt EIF header: {count} sections");
    let mut parts = Parts { format: "an EIF image", ..Parts::default() };
    for section in 0..count {
        let (at, size) = (number(28 + 8 * section, 8), number(28 + 8 * SECTIONS + 8 * section, 8));
        let start = at.checked_add(SECTION as u64);
        let end = start.and_then(|start| start.checked_add(size)).filter(|end| *end <= bytes);
        let (Some(start), Some(end)) = (start, end) else {
            bail!("truncated: section {section} at byte {at} of the EIF image has {size} bytes");
        };
        let mut kind = [0; 2];
        read_at(at, &mut kind).with_context(|| format!("cannot read section {section}, at byte {at}"))?;
        let part = |name: &str| Part { name: name.to_string(), start, end };
        match u16::from_be_bytes(kind) {
            1 => parts.kernel = Some(part("the kernel")),
            2 => parts.cmdline = Some(part("the command line")),
            3 => parts.image.push(part(&format!("ramdisk {}", parts.image.len() + 1))),
            _ => {}
        }
    }
    ensure!(!parts.image.is_empty(), "this is an EIF image without a ramdisk");
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::super::parts_of_bytes;
    use super::HEADER;

    /// An image with these sections: kinds and contents.
    fn eif(sections: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = b".eif\0\x04\0\0".to_vec();
        bytes.extend([0; 18]);
        bytes.extend(u16::try_from(sections.len()).unwrap().to_be_bytes());
        let (mut offsets, mut sizes, mut data) = (vec![0; 256], vec![0; 256], Vec::new());
        for (number, (kind, contents)) in sections.iter().enumerate() {
            let at = (HEADER + data.len()) as u64;
            offsets[8 * number..8 * number + 8].copy_from_slice(&at.to_be_bytes());
            let size = contents.len() as u64;
            sizes[8 * number..8 * number + 8].copy_from_slice(&size.to_be_bytes());
            data.extend([&kind.to_be_bytes()[..], &[0, 0], &size.to_be_bytes(), contents].concat());
        }
        [bytes, offsets, sizes, vec![0; 8], data].concat()
    }

    #[test]
    fn kernel_and_ramdisks_are_found() {
        let bytes = eif(&[(1, b"kernel"), (2, b"quiet"), (3, b"first"), (5, b"{}"), (3, b"second")]);
        let parts = parts_of_bytes(&bytes).unwrap().unwrap();
        let of = |part: &super::Part| {
            bytes[usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap()].to_vec()
        };
        assert_eq!(parts.image.iter().map(of).collect::<Vec<_>>(), [b"first".to_vec(), b"second".to_vec()]);
        assert_eq!(parts.kernel.as_ref().map(of).unwrap(), b"kernel");
        assert_eq!(parts.cmdline.as_ref().map(of).unwrap(), b"quiet");
    }

    #[test]
    fn lies_are_errors() {
        let whole = eif(&[(3, b"ramdisk")]);
        let mut many = whole.clone();
        many[27] = 33;
        let mut far = whole.clone();
        far[28] = 0xff;
        for (bytes, expected) in [
            (&whole[..100], "truncated: an EIF image ends in its header"),
            (&whole[..whole.len() - 1], "truncated: section 0 at byte 548 of the EIF image has 7 bytes"),
            (&many, "corrupt EIF header: 33 sections"),
            (&far, "truncated: section 0 at byte 18374686479671624228 of the EIF image has 7 bytes"),
            (&eif(&[(1, b"kernel")]), "this is an EIF image without a ramdisk"),
        ] {
            assert_eq!(parts_of_bytes(bytes).unwrap_err().to_string(), expected);
        }
    }
}
