//! What the kernel does silently with members: the first of each kind is named, the others are counted.

use std::collections::BTreeMap;

/// A kind of surprise, in the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Surprise {
    /// A member comes before its directory.
    Early,
    /// A member that the kernel skips.
    Skipped,
    /// A member has the name of a directory with entries.
    Directory,
    /// A member is a hard link to a name that does not exist.
    Link,
    /// A member overwrites a file that has other names.
    Shared,
    /// A directory takes the place of a symbolic link.
    Unlinked,
    /// A member has a checksum.
    Checksum,
}

/// What one pass over an image found.
#[derive(Debug, Default)]
pub(super) struct Notes {
    found: BTreeMap<Surprise, (u64, String)>,
}

impl Notes {
    /// Notes one member. Only the text of the first is made.
    pub(super) fn add(&mut self, surprise: Surprise, text: impl FnOnce() -> String) {
        self.found.entry(surprise).or_insert_with(|| (0, text())).0 += 1;
    }

    /// A line for the first of each kind, and one with the number where there are more.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (surprise, (count, first)) in &self.found {
            lines.push(first.clone());
            let all = match surprise {
                Surprise::Early => {
                    format!("{count} members in total come before their directory and are lost")
                }
                Surprise::Skipped => format!("the kernel skips {count} members in total"),
                Surprise::Directory => {
                    format!("{count} members in total have the name of a directory with entries and are lost")
                }
                Surprise::Link => {
                    format!("{count} members in total are hard links to names that were lost, and are lost")
                }
                Surprise::Shared => format!("{count} members in total overwrite files with other hard links"),
                Surprise::Unlinked => format!("{count} directories in total replace symbolic links"),
                Surprise::Checksum => continue,
            };
            if *count > 1 {
                lines.push(all);
            }
        }
        lines
    }
}
