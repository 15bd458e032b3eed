//! What a digest of the payload (`payload=`) makes of the other settings: whoever controls one source must
//! not be able to get around a digest that another one sets.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::Options;

/// Where `repot pack` and `repot append` put the image's own `/init`.
const CHAIN: &[u8] = b"/init.real";

/// The key that lets entries beside a payload override it.
pub(super) const OVERLAY: &[u8] = b"payload.overlay";

/// What one source sets of the keys that a digest depends on.
pub(super) struct Trust {
    pub(super) digests: usize,
    pub(super) overlay: bool,
    pub(super) init: Option<Vec<u8>>,
}

impl Trust {
    /// Takes them out of the options, the digests excepted.
    pub(super) fn take(options: &mut Options) -> Trust {
        let overlay = core::mem::take(&mut options.payload_overlay);
        Trust { digests: options.payload.len(), overlay, init: options.init.take() }
    }
}

impl Options {
    /// Decides what counts if a digest is set. Whoever controls one source must not be able to switch off or
    /// to get around a digest that another source sets.
    pub(super) fn weigh(&mut self, file: &Trust, line: &Trust, ignored: bool) {
        let allows = |source: &Trust| source.overlay || source.digests == 0;
        self.payload_overlay = (file.overlay || line.overlay) && allows(file) && allows(line);
        if (file.overlay || line.overlay) && !self.payload_overlay {
            self.warnings.push(
                "payload.overlay=yes ignored: it counts only in the source that sets payload=".to_string(),
            );
        }
        self.init = line.init.clone().or(file.init.clone());
        if line.digests == 0 || self.payload_overlay {
            return;
        }
        if line.init.is_none() && file.init.is_some() {
            self.uncovered.push("init= (set repot.init= on the command line instead)".to_string());
        }
        // That of the tool is no choice.
        if line.init.is_none() && self.chain.as_deref().is_some_and(|chain| chain != CHAIN) {
            self.uncovered.push("chain= (set repot.init= on the command line instead)".to_string());
        }
        if ignored {
            self.uncovered.push("cmdline=ignore (the command line sets more than the digest)".to_string());
        }
    }
}
