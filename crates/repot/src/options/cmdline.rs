//! The kernel command line, split as the kernel splits it (`next_arg`, lib/cmdline.c).

use alloc::vec::Vec;

use rustix::io::Errno;

use crate::error::Fault;

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// The text before the first `=`.
    pub key: &'a [u8],
    /// The text behind it, without double quotes around it; `None` without a `=`.
    pub value: Option<&'a [u8]>,
}

/// Splits the parameters up to `--`. The rest belongs to the init.
pub fn parse(line: &[u8]) -> Vec<Param<'_>> {
    let mut params = Vec::new();
    let mut remaining = line;
    loop {
        let start = remaining.iter().position(|byte| !space(*byte)).unwrap_or(remaining.len());
        remaining = &remaining[start..];
        if remaining.is_empty() {
            return params;
        }
        let (param, end) = next(remaining);
        remaining = &remaining[end..];
        if param.key == b"--" && param.value.is_none() {
            return params;
        }
        params.push(param);
    }
}

fn space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0
}

/// The first parameter of `text`, which begins with it, and the offset of its end.
fn next(text: &[u8]) -> (Param<'_>, usize) {
    let mut quoted = false;
    let mut equals = None;
    let mut end = text.len();
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'=' if equals.is_none() => equals = Some(at),
            byte if space(*byte) && !quoted => {
                end = at;
                break;
            }
            _ => {}
        }
    }
    let param_text = &text[..end];
    // A quote may open before the name or before the value. The closing quote is then the last character.
    let quoted_name = param_text.first() == Some(&b'"');
    let from = usize::from(quoted_name);
    let close = |text: &'_ [u8]| text.len() - usize::from(text.len() > 1 && text.last() == Some(&b'"'));
    let param = match equals {
        Some(at) => {
            let value = &param_text[at + 1..];
            let quoted_value = value.first() == Some(&b'"');
            let value = if quoted_value { &value[1..] } else { value };
            let value = match value {
                [start @ .., b'"'] if quoted_value || quoted_name => start,
                other => other,
            };
            Param { key: &param_text[from.min(at)..at], value: Some(value) }
        }
        None if quoted_name => Param { key: &param_text[from..close(param_text).max(from)], value: None },
        None => Param { key: param_text, value: None },
    };
    (param, end)
}

/// Splits mount options at commas. A part that begins with a digit belongs to the one before it, as in
/// `mpol=bind:0,2` (`shmem_parse_options`).
pub fn mount_options(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let text = rest?;
        let is_end = |at: &usize| text[*at] == b',' && !text.get(at + 1).is_some_and(u8::is_ascii_digit);
        let end = (0..text.len()).find(is_end);
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// Whether two names are equal to the kernel, which does not distinguish `-` and `_`.
pub fn same_key(a: &[u8], b: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'-' { b'_' } else { *byte };
    a.iter().map(plain).eq(b.iter().map(plain))
}

/// Whether the kernel took a parameter from a bootconfig: /proc/bootconfig lists it as `kernel.KEY`, and the
/// parameters of the boot loader in comments. A bootconfig that cannot be read may contain it; a kernel
/// without the file has none.
pub(crate) fn in_bootconfig(bootconfig: Result<Vec<u8>, Fault>, key: &[u8]) -> bool {
    let text = match bootconfig {
        Ok(text) => text,
        Err(fault) => return fault.errno != Errno::NOENT,
    };
    text.split(|byte| *byte == b'\n').any(|line| {
        let name = line.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        name.strip_prefix(b"kernel.").is_some_and(|name| same_key(name, key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootconfig_is_told_from_the_command_line() {
        let key = b"repot.payload.overlay";
        let found = |text: &str| in_bootconfig(Ok(text.as_bytes().to_vec()), key);
        assert!(found("init.a = \"b\"\nkernel.repot.payload.overlay = \"yes\"\n"));
        assert!(!found("# Parameters from bootloader:\n# repot.payload.overlay=yes\n") && !found(""));
        let fault = |errno| Fault { what: crate::error::What::Call("openat"), path: Vec::new(), errno };
        assert!(!in_bootconfig(Err(fault(Errno::NOENT)), key) && in_bootconfig(Err(fault(Errno::IO)), key));
    }

    fn pairs(line: &str) -> Vec<(&str, Option<&str>)> {
        let text = |bytes| core::str::from_utf8(bytes).unwrap();
        parse(line.as_bytes()).into_iter().map(|p| (text(p.key), p.value.map(text))).collect()
    }

    #[test]
    fn splits_as_the_kernel_does() {
        assert_eq!(pairs("quiet  a=b\tc=\n"), [("quiet", None), ("a", Some("b")), ("c", Some(""))]);
        assert_eq!(pairs(r#"a="b c" d"#), [("a", Some("b c")), ("d", None)]);
        assert_eq!(pairs(r#""a=b c" d"#), [("a", Some("b c")), ("d", None)]);
        assert_eq!(pairs(r#"a=b" "c"#), [("a", Some(r#"b" "c"#))]);
        assert_eq!(pairs(r#"a="unclosed b"#), [("a", Some("unclosed b"))]);
        assert_eq!(pairs("a=1 -- repot.mode=stay"), [("a", Some("1"))]);
        assert_eq!(pairs("a=b=c"), [("a", Some("b=c"))]);
        assert_eq!(pairs("\""), [("", None)]);
    }

    #[test]
    fn dash_is_underscore() {
        assert!(same_key(b"repot.nr-inodes", b"repot.nr_inodes"));
        assert!(!same_key(b"repot.nr_inode", b"repot.nr_inodes"));
    }
}
