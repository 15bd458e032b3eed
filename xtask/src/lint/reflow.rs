//! `cargo xtask lint --reflow FILE...`: refills comments that end beyond the last column.

use super::text::{COLUMNS, is_wide};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// Refills the paragraphs with a wide line, and lists what it leaves wide: tables, code, headings.
pub(super) fn reflow(files: &[PathBuf]) -> Result<()> {
    for path in files {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let filled = refill(&text);
        if filled != text {
            std::fs::write(path, &filled).with_context(|| format!("cannot write {shown}"))?;
            println!("{shown}: refilled");
        }
        for (number, _) in filled.lines().enumerate().filter(|(_, line)| is_wide(line)) {
            println!("{shown}:{}: still wider than {COLUMNS} columns", number + 1);
        }
    }
    Ok(())
}

/// A comment line, cut into what repeats on each line, what begins a list item, and the words.
struct Comment<'a> {
    /// Indentation and slashes.
    prefix: &'a str,
    /// The blanks or the bullet before the words.
    lead: &'a str,
    words: &'a str,
}

impl Comment<'_> {
    fn read(line: &str) -> Option<Comment<'_>> {
        let indent = line.len() - line.trim_start().len();
        let slashes = line.get(indent..)?;
        let marker = ["//!", "///", "//"].into_iter().find(|marker| slashes.starts_with(marker))?;
        let (prefix, rest) = line.split_at(indent + marker.len());
        let blanks = rest.len() - rest.trim_start().len();
        let bullet = ["* ", "- "].into_iter().find(|bullet| rest.trim_start().starts_with(bullet));
        let (lead, words) = rest.split_at(blanks + bullet.map_or(0, str::len));
        Some(Comment { prefix, lead, words: words.trim_end() })
    }

    /// Whether this line cannot be joined with another: nothing, a heading, a row of a table, a fence.
    fn stands_alone(&self) -> bool {
        self.words.is_empty() || ["#", "|", "```"].iter().any(|mark| self.words.starts_with(mark))
    }

    /// Whether `next` goes on with the paragraph that begins here.
    fn goes_on(&self, next: &Comment<'_>) -> bool {
        let item = next.lead.trim().is_empty();
        item && next.prefix == self.prefix && next.lead.len() == self.lead.len() && !next.stands_alone()
    }
}

fn refill(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let (mut out, mut at, mut fenced) = (Vec::<String>::new(), 0, false);
    while let Some(line) = lines.get(at) {
        let Some(first) = Comment::read(line) else {
            (fenced, at) = (false, at + 1);
            out.push((*line).to_owned());
            continue;
        };
        fenced ^= first.words.starts_with("```");
        let mut end = at + 1;
        if !fenced && !first.stands_alone() {
            let goes_on = |line: &&str| Comment::read(line).is_some_and(|next| first.goes_on(&next));
            end += lines[end..].iter().take_while(|line| goes_on(line)).count();
        }
        let paragraph = &lines[at..end];
        if !fenced && !first.stands_alone() && paragraph.iter().any(|line| is_wide(line)) {
            fill(&first, paragraph, &mut out);
        } else {
            out.extend(paragraph.iter().map(|line| (*line).to_owned()));
        }
        at = end;
    }
    out.push(String::new());
    out.join("\n")
}

fn fill(first: &Comment<'_>, paragraph: &[&str], out: &mut Vec<String>) {
    let mut line = format!("{}{}", first.prefix, first.lead);
    let indent = format!("{}{}", first.prefix, " ".repeat(first.lead.len()));
    let words = paragraph.iter().filter_map(|line| Comment::read(line)).flat_map(|comment| {
        // `words` borrows from the line, not from the comment.
        let Comment { words, .. } = comment;
        words.split_whitespace()
    });
    let mut empty = true;
    for word in words {
        if !empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            out.push(std::mem::replace(&mut line, indent.clone()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push(line);
}

#[cfg(test)]
mod tests {
    use super::refill;

    #[test]
    fn wide_paragraphs_are_filled_and_others_left() {
        let wide = format!("    /// {}end\n    /// tail\n", "word ".repeat(30));
        let filled = refill(&wide);
        assert!(
            filled.lines().all(|line| line.chars().count() <= 110 && line.starts_with("    /// ")),
            "{filled}"
        );
        assert!(filled.ends_with("end tail\n"), "{filled}");
        let narrow = "// a\n// b\nfn f() {}\n";
        assert_eq!(refill(narrow), narrow);
    }

    #[test]
    fn lists_keep_their_indent_and_code_its_lines() {
        let list = format!("//! * {}\n//!   tail\n//! * other\n", "word ".repeat(25).trim_end());
        let filled = refill(&list);
        assert_eq!(filled.lines().filter(|line| line.starts_with("//! * ")).count(), 2, "{filled}");
        assert!(filled.contains("//!   word"), "{filled}");
        let code = format!("/// ```\n/// {}\n/// ```\n", "word ".repeat(30).trim_end());
        assert_eq!(refill(&code), code);
    }
}
