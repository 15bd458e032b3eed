//! Sizes as people read them.

/// `187.3 MiB`; bytes below a KiB.
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

/// Whole MiB.
#[must_use]
pub fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        assert_eq!(super::human(0), "0 B");
        assert_eq!(super::human(1536), "1.5 KiB");
        assert_eq!(super::human(187 << 20), "187.0 MiB");
    }
}
