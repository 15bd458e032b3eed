//! ACLs as text, from `tar --acls`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot_cli::source::acl::{self, Text};
use repot_cli::tree::{Attributes, Tree};

fuzz_target!(|text: &str| {
    for default in [false, true] {
        let mut tree = Tree::new(Attributes::default());
        acl::apply(&mut tree, &[Text { inode: Tree::ROOT, default, text: text.to_owned() }]);
        let attributes = &tree.inode(Tree::ROOT).attributes;
        assert!(attributes.permissions <= 0o7777);
        // A version and eight bytes for each entry.
        assert!(attributes.xattrs.values().all(|value| value.len() % 8 == 4));
    }
});
