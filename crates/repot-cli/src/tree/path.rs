//! Names in archives are paths, and every reader takes them as the kernel does: `bin/`, `./bin`, `/bin` and
//! `//bin` are one name.
//!
//! `..` is kept. Who may follow it is up to the reader.

/// The names of a path, without empty ones and `.`.
pub(crate) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// The path without slashes at its ends, repeated slashes and `.`. Empty for the root.
pub(crate) fn normal(path: &[u8]) -> Vec<u8> {
    components(path).collect::<Vec<_>>().join(&b'/')
}

/// Whether [normal] leaves the path as it is.
pub(crate) fn is_normal(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').all(|name| !name.is_empty() && name != b".")
}

/// The directory and the name in it, of a [normal] path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_spellings_are_one_path() {
        for name in ["a/b", "/a/b", "./a/b", "a//b/", "//a/./b/.", "././a/b//"] {
            assert_eq!(normal(name.as_bytes()), b"a/b", "{name}");
            assert_eq!(is_normal(name.as_bytes()), name == "a/b", "{name}");
        }
        for name in ["", ".", "/", "./", "//", "/./"] {
            assert_eq!(normal(name.as_bytes()), b"", "{name}");
            assert!(!is_normal(name.as_bytes()), "{name}");
        }
        assert_eq!(normal(b"a/../b"), b"a/../b");
        assert_eq!(normal(b"..a/.b"), b"..a/.b");
        assert_eq!((split(b"a/b/c"), split(b"c")), ((&b"a/b"[..], &b"c"[..]), (&b""[..], &b"c"[..])));
    }
}
