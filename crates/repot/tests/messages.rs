//! docs/troubleshooting.md has every message that the init can log.
use std::fs;
use std::path::Path;

/// Texts that are no messages, or that only the runner logs.
const OTHERS: [&str; 3] = ["ioctl FS_IOC_", "lseek SEEK_", "open_by_handle_at"];
const FILES: [&str; 1] = ["run.rs"];

/// The string literals of a source file, without comments and unit tests.
fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    // Lines that go on: the spaces before the rest are not part of the literal.
    let source = source.split("\\\n").map(str::trim_start).collect::<String>();
    let (mut found, mut rest) = (Vec::new(), source.as_str());
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let tail = &rest[at + 1..];
        rest = match rest.as_bytes()[at] {
            b'/' if tail.starts_with('/') => &tail[tail.find('\n').unwrap_or(tail.len())..],
            b'/' => tail,
            // A character, not a lifetime.
            b'\'' if tail.starts_with("\\'") || tail.starts_with("\\\\") => &tail[3.min(tail.len())..],
            b'\'' if tail.get(1..2) == Some("'") => &tail[2..],
            b'\'' => tail,
            _ => {
                let (mut text, mut escaped, mut end) = (String::new(), false, tail.len());
                for (place, letter) in tail.char_indices() {
                    match letter {
                        '"' if !escaped => {
                            end = place + 1;
                            break;
                        }
                        '\\' if !escaped => escaped = true,
                        _ => {
                            escaped = false;
                            text.push(letter);
                        }
                    }
                }
                found.push(text);
                &tail[end.min(tail.len())..]
            }
        };
    }
    found
}

/// The longest part of a message that does not differ; `None` if the literal is no message.
fn fixed(literal: &str) -> Option<String> {
    let mut parts = Vec::new();
    let mut rest = literal;
    while let Some(at) = rest.find('{') {
        parts.push(&rest[..at]);
        rest = rest[at..].split_once('}').map_or("", |(_, rest)| rest);
    }
    parts.push(rest);
    let separators = [' ', ';', ',', ':', '"', '(', '.'];
    let part = parts.into_iter().map(|part| part.trim_matches(separators)).max_by_key(|part| part.len())?;
    let words = part.split(' ').filter(|word| word.bytes().any(|byte| byte.is_ascii_alphabetic())).count();
    (words > 1 && !OTHERS.iter().any(|other| part.starts_with(other))).then(|| part.to_owned())
}

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if entry.is_dir() {
            sources(&entry, found);
        } else if name.ends_with(".rs") && name != "tests.rs" && !FILES.contains(&name) {
            found.append(&mut literals(&fs::read_to_string(&entry).expect("a source file")));
        }
    }
}

#[test]
fn the_page_has_every_message() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(here.join("../../docs/troubleshooting.md")).expect("the page");
    let mut found = Vec::new();
    sources(&here.join("src"), &mut found);
    sources(&here.join("../repot-init/src"), &mut found);
    let messages: Vec<String> = found.iter().filter_map(|literal| fixed(literal)).collect();
    assert!(messages.len() > 200, "only {} messages were found in the sources", messages.len());
    let missing: Vec<&String> = messages.iter().filter(|message| !page.contains(*message)).collect();
    assert!(missing.is_empty(), "docs/troubleshooting.md lacks {missing:#?}");
}

#[test]
fn literals_are_found() {
    let source = "let a = 'x'; /* */ f(\"one two\"); // \"no\"\nlet b: &'a str = b\"a \\\"quoted\\\" one\"; '\\''; '\"'; g(\"last\");";
    assert_eq!(literals(source), ["one two", "a \"quoted\" one", "last"]);
    assert_eq!(fixed("{a}: the disk is full, {b}").as_deref(), Some("the disk is full"));
    assert_eq!(fixed("/sbin/init"), None);
}
