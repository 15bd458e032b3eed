//! Bytes as text that survives JSON and a terminal.

/// Bytes as printable ASCII. Everything else, and the backslash, becomes `\xNN`.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte == b'\\' || !(b' '..=b'~').contains(&byte) {
            text.push_str(&format!("\\x{byte:02x}"));
        } else {
            text.push(char::from(byte));
        }
    }
    text
}

/// The bytes that [`escape`] wrote. `None` for any other text.
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let digits = part.strip_prefix('x')?;
        bytes.push(u8::from_str_radix(digits.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(digits.get(2..)?.as_bytes());
    }
    Some(bytes)
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits. `None` for any other text.
#[must_use]
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.is_ascii() || digits.len() % 2 == 1 {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_stay_different_and_come_back() {
        assert_eq!(escape(b"a b"), "a b");
        assert_eq!(escape(b"\\x0a"), "\\x5cx0a");
        assert_eq!(escape(b"\n\xff"), "\\x0a\\xff");
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&escape(&all)), Some(all));
        assert_eq!(unescape("\\y"), None);
    }

    #[test]
    fn hexadecimal_digits_come_back() {
        assert_eq!(unhex(&hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
    }
}
