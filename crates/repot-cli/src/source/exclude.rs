//! Leaving entries out by pattern.

use crate::tree::{Id, Tree};

/// Removes what a pattern fits, with everything below it, and returns the number of names.
///
/// A pattern with a slash fits a path from the root on, one without fits a name anywhere. `*` and `?` stand for
/// any bytes but a slash, `**` for any bytes, `[a-z]` for one of a set.
pub fn remove(tree: &mut Tree, pattern: &str) -> usize {
    let anchored = pattern.trim_end_matches('/').contains('/');
    let pattern = pattern.trim_start_matches('/').trim_end_matches('/').as_bytes();
    let mut found = Vec::new();
    below(tree, &mut Vec::new(), Tree::ROOT, &mut |directory, path, name| {
        let fits = fits(pattern, if anchored { path } else { name });
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

/// Calls `visit` with the directory, the path and the name of every entry. It returns whether to stay out of it.
fn below(tree: &Tree, path: &mut Vec<u8>, directory: Id, visit: &mut dyn FnMut(Id, &[u8], &[u8]) -> bool) {
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
    use super::fits;

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
