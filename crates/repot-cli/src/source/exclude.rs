//! Leaving entries out by pattern.

use crate::tree::{Id, Tree};

/// A pattern for names.
///
/// With a slash, it fits a path from the root on; without, it fits a name anywhere. `*` and `?` stand for any
/// bytes but a slash, `**` for any bytes, `[a-z]` for one of a set.
#[derive(Debug, Clone)]
pub struct Pattern {
    anchored: bool,
    text: Vec<u8>,
}

impl Pattern {
    /// Takes a pattern as it was typed. Slashes at its ends do not count for its text.
    #[must_use]
    pub fn new(text: &str) -> Pattern {
        let anchored = text.trim_end_matches('/').contains('/');
        let text = text.trim_start_matches('/').trim_end_matches('/').as_bytes().to_vec();
        Pattern { anchored, text }
    }

    /// Whether it fits an entry, by its path and its name.
    fn fits(&self, path: &[u8], name: &[u8]) -> bool {
        fits(&self.text, if self.anchored { path } else { name })
    }

    /// Whether it fits a path or a directory above it.
    #[must_use]
    pub fn covers(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut start = 0;
        ends.chain([path.len()]).any(|end| {
            let name = &path[start..end];
            start = end + 1;
            self.fits(&path[..end], name)
        })
    }
}

/// Removes what a pattern fits, with everything below it, and returns the number of names.
pub fn remove(tree: &mut Tree, pattern: &str) -> usize {
    let pattern = Pattern::new(pattern);
    let mut found = Vec::new();
    below(tree, &mut Vec::new(), Tree::ROOT, &mut |directory, path, name| {
        let fits = pattern.fits(path, name);
        if fits {
            found.push((directory, name.to_vec()));
        }
        fits
    });
    for (directory, name) in &found {
        tree.unlink(*directory, name);
    }
    found.len()
}

/// Gets the directory, the path and the name of an entry, and returns whether to stay out of it.
type Visit<'a> = &'a mut dyn FnMut(Id, &[u8], &[u8]) -> bool;

/// Calls `visit` for every entry, parents first.
fn below(tree: &Tree, path: &mut Vec<u8>, directory: Id, visit: Visit<'_>) {
    for (name, &id) in tree.entries(directory).into_iter().flatten() {
        let parent = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if !visit(directory, path, name) {
            below(tree, path, id, visit);
        }
        path.truncate(parent);
    }
}

/// Whether a pattern fits the whole text.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', b'*', rest @ ..], _) => (0..=text.len()).any(|at| fits(rest, &text[at..])),
        ([b'*', rest @ ..], _) => {
            let end = text.iter().position(|&byte| byte == b'/').unwrap_or(text.len());
            (0..=end).any(|at| fits(rest, &text[at..]))
        }
        ([b'?', rest @ ..], [byte, more @ ..]) if *byte != b'/' => fits(rest, more),
        ([b'[', rest @ ..], [byte, more @ ..]) if *byte != b'/' => match set(rest, *byte) {
            Some((within, rest)) => within && fits(rest, more),
            None => *byte == b'[' && fits(rest, more),
        },
        ([b'\\', escaped, rest @ ..], [byte, more @ ..]) => escaped == byte && fits(rest, more),
        ([literal, rest @ ..], [byte, more @ ..]) => literal == byte && fits(rest, more),
        _ => false,
    }
}

/// Whether a byte is in the set that begins the pattern, and what follows the set. `None` if it has no end.
fn set(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, pattern) = match pattern {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let end = 1 + pattern.get(1..)?.iter().position(|&byte| byte == b']')?;
    let (mut set, mut within) = (&pattern[..end], false);
    while let [first, rest @ ..] = set {
        (within, set) = match rest {
            [b'-', last, rest @ ..] => (within || (*first..=*last).contains(&byte), rest),
            _ => (within || *first == byte, rest),
        };
    }
    Some((within != negated, &pattern[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::{Pattern, fits};

    #[test]
    fn a_pattern_covers_what_is_below() {
        for (pattern, path) in [
            ("usr/bin", "usr/bin/ls"),
            ("/usr/bin/", "usr/bin"),
            ("bin", "usr/bin/ls"),
            ("*.ko", "lib/modules/a.ko"),
            ("/usr", "usr/x"),
        ] {
            assert!(Pattern::new(pattern).covers(path.as_bytes()), "{pattern} {path}");
        }
        for (pattern, path) in
            [("usr/bin", "usr/binary"), ("/bin", "usr/bin"), ("bin/", "usr/sbin"), ("a", ".")]
        {
            assert!(!Pattern::new(pattern).covers(path.as_bytes()), "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_fit_as_those_of_a_shell() {
        let yes = [
            ("*.pyc", "a.pyc"),
            ("usr/share/doc/*", "usr/share/doc/x"),
            ("usr/**/doc", "usr/share/a/doc"),
            ("**", "a/b"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]x", "]x"),
            ("a\\*", "a*"),
            ("[x", "[x"),
        ];
        for (pattern, text) in yes {
            assert!(fits(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in
            [("*.pyc", "a/b.pyc"), ("a?c", "a/c"), ("[a-c]x", "dx"), ("a\\*", "ab"), ("a", "ab")]
        {
            assert!(!fits(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }
}
