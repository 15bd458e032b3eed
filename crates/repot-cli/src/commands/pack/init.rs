//! The init that `pack` puts into an image.

use anyhow::Result;
use repot::facts::program::Architecture;

use crate::cli::Pack;
use crate::init_binary::{self, InitBinary};
use crate::programs;
use crate::tree::Tree;

/// The architecture of the root's programs, the one that will run in the end before all others.
pub(super) fn target(args: &Pack, tree: &Tree) -> Option<Architecture> {
    let named = args.config.iter().find(|setting| setting.key == "init").map(|setting| &setting.value);
    let first = args.program.args.first().or(named);
    let repot = programs::tree_has_repot(tree);
    programs::architecture_of(tree, &programs::of_tree(tree), repot, first.map(String::as_str))
}

/// The init for it that the arguments ask for.
pub(super) fn find(args: &Pack, target: Option<Architecture>) -> Result<InitBinary> {
    if args.payload {
        init_binary::find_for_payload(args.init.as_deref(), target)
    } else {
        init_binary::find(args.init.as_deref(), target)
    }
}
