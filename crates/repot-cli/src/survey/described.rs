//! The program that an image runs.

use repot::run::{DESCRIPTION, Program};

use super::Survey;
use super::spool::Root;
use crate::tree::Kind;

impl Survey {
    /// The program that the runner of the image runs, if the image has a description of one. An error says
    /// what is wrong with the description.
    #[must_use]
    pub fn described(&self, root: Option<&Root>) -> Option<Result<Program, String>> {
        let inside = root.and_then(|root| {
            let id = root.tree.find(DESCRIPTION.as_bytes()).filter(|id| !root.outer.contains_key(id))?;
            let Kind::File(contents) = &root.tree.inode(id).kind else { return None };
            Some(contents.read().map_err(|error| format!("/{DESCRIPTION}: {error}")))
        });
        let text = inside.or_else(|| self.description.clone().map(Ok))?;
        Some(text.and_then(|text| Program::parse(&text).map_err(|flaw| flaw.to_string())))
    }
}
