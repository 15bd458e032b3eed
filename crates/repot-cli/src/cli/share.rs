//! The argument of `boot --share`.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

/// A directory of this machine and its place in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The directory here.
    pub directory: PathBuf,
    /// Where it is in the guest; without it, in `/mnt`.
    pub path: Option<String>,
    /// Whether the guest may not write.
    pub read_only: bool,
}

impl FromStr for Share {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Share, Infallible> {
        let (rest, read_only) = match text.strip_suffix(":ro") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (directory, path) = match rest.rsplit_once(":/") {
            Some((directory, path)) => (directory, Some(format!("/{path}"))),
            None => (rest, None),
        };
        Ok(Share { directory: directory.into(), path, read_only })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_path_and_ro_are_told_apart() {
        let parts = |text: &str| {
            let Share { directory, path, read_only } = text.parse().unwrap();
            (directory.to_str().unwrap().to_owned(), path, read_only)
        };
        assert_eq!(parts("src"), ("src".into(), None, false));
        assert_eq!(parts("/a:b:/mnt/c"), ("/a:b".into(), Some("/mnt/c".into()), false));
        assert_eq!(parts("src:ro"), ("src".into(), None, true));
        assert_eq!(parts(".:/srv:ro"), (".".into(), Some("/srv".into()), true));
    }
}
