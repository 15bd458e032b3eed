//! Sizes for people.

/// Formats a size as `187.3 MiB`.
#[must_use]
pub fn human(bytes: u64) -> String {
    let mut scaled = bytes;
    let mut rest = 0;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if scaled < 1024 || unit == "TiB" {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{scaled}.{} {unit}", rest * 10 / 1024)
            };
        }
        (scaled, rest) = (scaled / 1024, scaled % 1024);
    }
    bytes.to_string()
}

/// Formats a size in whole MiB.
#[must_use]
pub fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// A multiple of 1 KiB as an option takes it, such as 16k.
#[must_use]
pub(crate) fn short(bytes: u64) -> String {
    format!("{}k", bytes >> 10)
}

/// Parses a number with a unit. A bare number is an error, since QEMU would read it as MiB and others as
/// bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err("a size is a number with a unit, such as 512M or 2G".into()),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{digits:?} is not a whole number"))?;
    let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "out of range".into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!(super::parse("512M"), Ok(512 << 20));
        assert_eq!(super::parse("3GiB"), super::parse("3g"));
        for text in ["", "M", "512", "0M", "-1M", "1.5G", "99999999999G", "7X", "1 M"] {
            assert!(super::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(super::human(0), "0 B");
        assert_eq!(super::human(1536), "1.5 KiB");
        assert_eq!(super::human(187 << 20), "187.0 MiB");
    }
}
