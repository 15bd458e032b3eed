//! The files of an image that may be `/etc/repot.conf`. The init finds it through links, and the data of a
//! hard link may come with another name, so the name of a member does not say which one it is.

use std::collections::HashMap;

use super::Survey;
use crate::image::config;
use crate::newc::Header;
use crate::tree::{Id, Kind};

/// The init reads no more of its configuration.
const LIMIT: u32 = 64 << 10;
/// Bytes of all texts that are kept.
const TOTAL: usize = 16 << 20;

/// Their contents.
#[derive(Debug, Default)]
pub(super) struct Texts {
    held: HashMap<Id, String>,
    bytes: usize,
}

impl Texts {
    /// Whether a member may be the configuration: its name ends as it does, or it is a hard link.
    pub(super) fn wants(header: &Header) -> bool {
        let named = header.name.ends_with(b"repot.conf");
        let linked = header.nlink > 1 && header.mode & 0o111 == 0;
        header.filesize <= LIMIT && (named || linked)
    }

    pub(super) fn keep(&mut self, id: Id, text: &[u8]) {
        self.forget(id);
        if self.bytes + text.len() <= TOTAL {
            self.bytes += text.len();
            self.held.insert(id, String::from_utf8_lossy(text).into_owned());
        }
    }

    pub(super) fn forget(&mut self, id: Id) {
        if let Some(text) = self.held.remove(&id) {
            self.bytes = self.bytes.saturating_sub(text.len());
        }
    }

    pub(super) fn get(&self, id: Id) -> Option<&str> {
        self.held.get(&id).map(String::as_str)
    }
}

impl Survey {
    /// `/etc/repot.conf`, as the init finds it: through links. Empty if there is none.
    #[must_use]
    pub fn config(&self) -> &str {
        self.tree().resolve(config::PATH.as_bytes()).and_then(|id| self.texts.get(id)).unwrap_or_default()
    }

    /// Whether `/etc/repot.conf` is a link to a file whose contents were not kept.
    #[must_use]
    pub fn config_is_unknown(&self) -> bool {
        let Some(id) = self.tree().resolve(config::PATH.as_bytes()) else { return false };
        let filled = matches!(&self.tree().inode(id).kind, Kind::File(contents) if !contents.is_empty());
        filled && self.texts.get(id).is_none()
    }
}
