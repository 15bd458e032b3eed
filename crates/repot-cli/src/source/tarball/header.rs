//! The header block of a member: fields, numbers and the checksum, in every dialect that GNU tar and bsdtar
//! write or read.

/// Bytes of a block.
pub(super) const BLOCK: u64 = 512;

/// A header block.
#[derive(Debug, Clone)]
pub(super) struct Header(pub(super) [u8; 512]);

/// Which program or standard defined the fields behind the first 257 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Version 7 of Unix: the fields are absent.
    Old,
    /// POSIX, with a second field for names.
    Ustar,
    /// GNU tar, with its own fields where POSIX has the second name.
    Gnu,
}

impl Header {
    /// Whether the block is all zeros, which ends an archive.
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    /// Whether the checksum is right. Some old programs added up signed bytes.
    pub(super) fn is_valid(&self) -> bool {
        let bytes = || self.0.iter().enumerate();
        let field = |at: usize| (148..156).contains(&at);
        let unsigned: i64 = bytes().map(|(at, &byte)| i64::from(if field(at) { b' ' } else { byte })).sum();
        let signed: i64 =
            bytes().map(|(at, &byte)| i64::from(if field(at) { b' ' } else { byte }.cast_signed())).sum();
        number(&self.0[148..156]).is_some_and(|sum| sum == unsigned || sum == signed)
    }

    pub(super) fn dialect(&self) -> Dialect {
        match &self.0[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            [b'u', b's', b't', b'a', b'r', ..] => Dialect::Ustar,
            _ => Dialect::Old,
        }
    }

    /// The type of the member, but for a directory of version 7.
    pub(super) fn kind(&self) -> u8 {
        match self.0[156] {
            0 | b'7' => b'0',
            other => other,
        }
    }

    /// The type of a member with this name. Version 7 had no type for directories, only names that end with a
    /// slash. The name is that of the records, if they have one: the one in the header may be cut off.
    pub(super) fn kind_of(&self, name: &[u8]) -> u8 {
        if matches!(self.0[156], 0 | b'0') && name.ends_with(b"/") { b'5' } else { self.kind() }
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if self.dialect() == Dialect::Ustar { text(&self.0[345..500]) } else { &[] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn target(&self) -> &[u8] {
        text(&self.0[157..257])
    }

    pub(super) fn mode(&self) -> Option<i64> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Option<i64> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Option<i64> {
        number(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Option<i64> {
        number(&self.0[124..136])
    }

    pub(super) fn mtime(&self) -> Option<i64> {
        number(&self.0[136..148])
    }

    /// Major and minor number of a device.
    pub(super) fn device(&self) -> (Option<i64>, Option<i64>) {
        (number(&self.0[329..337]), number(&self.0[337..345]))
    }
}

/// A field of text, which ends at a NUL or at its own end.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A number: octal digits, or the bytes of a binary number if the first bit is set. A field of blanks is 0.
/// `None` for anything else.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field.first()? & 0x80 != 0 {
        // Two's complement, in which the second bit is the sign.
        let first = field[0] & 0x7f;
        let start = if first & 0x40 != 0 { i128::from(first) - 0x80 } else { i128::from(first) };
        let value = field[1..].iter().fold(start, |value, &byte| value << 8 | i128::from(byte));
        return value.try_into().ok();
    }
    let digits = field.trim_ascii_start();
    let (sign, digits) = digits.strip_prefix(b"-").map_or((1, digits), |digits| (-1, digits));
    let end = digits.iter().position(|byte| !matches!(byte, b'0'..=b'7')).unwrap_or(digits.len());
    if !matches!(digits.get(end), None | Some(0 | b' ')) {
        return None;
    }
    let value = digits[..end]
        .iter()
        .try_fold(0i64, |value, &digit| value.checked_mul(8)?.checked_add(i64::from(digit - b'0')))?;
    Some(sign * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        let cases: [(&[u8], Option<i64>); 12] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644     ", Some(0o644)),
            (b"77777777", Some(0o77_777_777)),
            (b"        ", Some(0)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"\0garbage", Some(0)),
            (b"\x80\0\0\0\x01\0\0\0", Some(1 << 24)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"-1      ", Some(-1)),
            (b"12x\0\0\0\0\0", None),
            (b"root\0\0\0\0", None),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field), expected, "{}", field.escape_ascii());
        }
        assert_eq!(number(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }
}
