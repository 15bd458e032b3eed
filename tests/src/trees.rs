//! The trees that the tests move: those of [`repot_snapshot::plant`], and random ones for proptest.
//!
//! A random tree is a list of drafts. Each draft finds its place by an index into the directories before it,
//! so every list is a tree, and proptest can drop any draft while it shrinks.
use std::collections::BTreeSet;
use std::ffi::CString;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

pub use repot_snapshot::plant::{
    Data, Fs, Meta, Plant, What, crowd, hostile, hostile_archive, one_of_each, plant, shaft,
};
use repot_snapshot::plant::{acl, capability, dir};

/// What [`crate::stage::Stage::install`] adds to a tree and the boot reads before the move: their access
/// times may change.
pub const READ_AT_BOOT: [&str; 3] = ["init", "sbin/init", "etc/repot.conf"];

/// What is drawn for one entry.
#[derive(Clone, Debug)]
struct Draft {
    parent: Index,
    name: Vec<u8>,
    what: Option<What>,
    /// For a hard link: index of one of the entries before.
    first: Index,
    meta: Meta,
}

/// Random trees of at most `most` entries, with `/etc` and `/sbin` for the files of the sandbox.
pub fn trees(most: usize) -> impl Strategy<Value = Vec<Plant>> {
    (vec(draft(), 0..most), meta()).prop_map(|(drafts, top)| {
        let top = Plant { path: vec![], what: What::Dir, meta: top };
        let mut tree = vec![dir_of(top), dir("etc", 0o755), dir("sbin", 0o755)];
        let mut dirs = vec![vec![]];
        let mut taken: BTreeSet<Vec<u8>> = [b"etc".to_vec(), b"sbin".to_vec(), b"init".to_vec()].into();
        for draft in drafts {
            place(draft, &mut tree, &mut dirs, &mut taken);
        }
        tree
    })
}

fn place(draft: Draft, tree: &mut Vec<Plant>, dirs: &mut Vec<Vec<u8>>, taken: &mut BTreeSet<Vec<u8>>) {
    let parent = draft.parent.get(dirs);
    let mut path = parent.clone();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(&draft.name);
    if !taken.insert(path.clone()) {
        return;
    }
    let linkable: Vec<_> =
        tree.iter().filter(|plant| !matches!(plant.what, What::Dir | What::HardLink(_))).collect();
    let what = match draft.what {
        Some(what) => what,
        None if linkable.is_empty() => What::Fifo,
        None => What::HardLink(draft.first.get(&linkable).path.clone()),
    };
    let plant = Plant { path, what, meta: draft.meta };
    if plant.what == What::Dir {
        dirs.push(plant.path.clone());
        tree.push(dir_of(plant));
    } else {
        tree.push(only_what_it_takes(plant));
    }
}

/// Adds a default ACL, which only directories can have.
fn dir_of(mut plant: Plant) -> Plant {
    plant.meta.xattrs.retain(|(name, _)| name.as_c_str() != c"security.capability");
    if plant.meta.mode & 0o1000 != 0 {
        let default = acl(&[(1, 7, !0), (2, 5, 1), (4, 5, !0), (16, 7, !0), (32, 1, !0)]);
        plant.meta.xattrs.push((CString::from(c"system.posix_acl_default"), default));
    }
    plant
}

/// Only files and directories have user attributes, and symlinks have neither ACLs nor capabilities.
fn only_what_it_takes(mut plant: Plant) -> Plant {
    if !matches!(plant.what, What::File { .. }) {
        plant.meta.flags = 0;
        plant.meta.xattrs.retain(|(name, _)| name.to_bytes().starts_with(b"trusted."));
    }
    plant
}

fn draft() -> impl Strategy<Value = Draft> {
    (any::<Index>(), name(), what(), any::<Index>(), meta())
        .prop_map(|(parent, name, what, first, meta)| Draft { parent, name, what, first, meta })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("not in names", |byte| !matches!(byte, 0 | b'/'));
    let dots = |name: &Vec<u8>| name != b"." && name != b"..";
    prop_oneof![
        6 => "[a-z]{1,12}".prop_map(String::into_bytes),
        2 => vec(byte.clone(), 1..20).prop_filter("dots", dots),
        1 => vec(byte, 252..=255),
    ]
}

fn what() -> impl Strategy<Value = Option<What>> {
    let device = || prop_oneof![Just((0, 0)), Just((1, 3)), (0..4096_u32, 0..1_048_576_u32)];
    let target = vec(any::<u8>().prop_filter("not in targets", |&byte| byte != 0), 1..300);
    prop_oneof![
        6 => file().prop_map(Some),
        5 => Just(Some(What::Dir)),
        2 => target.prop_map(|target| Some(What::Symlink(target))),
        1 => device().prop_map(|(major, minor)| Some(What::Char(major, minor))),
        1 => device().prop_map(|(major, minor)| Some(What::Block(major, minor))),
        1 => Just(Some(What::Fifo)),
        1 => Just(Some(What::Socket)),
        3 => Just(None),
    ]
}

/// Mostly small files, whole or with holes, a few of several chunks.
fn file() -> impl Strategy<Value = What> {
    let len = prop_oneof![6 => 0..20_000_u64, 2 => 0..300_000_u64, 1 => 1_000_000..3_200_000_u64];
    let pieces =
        prop_oneof![1 => Just(None), 1 => vec((any::<Index>(), 1..100_000_u64), 0..4).prop_map(Some)];
    (len, pieces).prop_map(|(len, pieces)| {
        let size = usize::try_from(len).expect("small");
        let data = match pieces {
            _ if len == 0 => vec![],
            None => vec![Data { at: 0, len }],
            Some(pieces) => pieces
                .into_iter()
                .map(|(at, wide)| {
                    let at = at.index(size) as u64;
                    Data { at, len: wide.min(len - at) }
                })
                .collect(),
        };
        What::File { len, data }
    })
}

fn meta() -> impl Strategy<Value = Meta> {
    let id = || prop_oneof![3 => Just(0), 1 => 1..1000_u32, 1 => 65_536..4_294_967_294_u32];
    let time = || (-2_000_000_000..8_000_000_000_i64, 0..1_000_000_000_u32);
    (0..0o10000_u32, id(), id(), time(), time(), vec(xattr(), 0..3), flags()).prop_map(
        |(mode, uid, gid, atime, mtime, xattrs, flags)| Meta { mode, uid, gid, atime, mtime, xattrs, flags },
    )
}

fn flags() -> impl Strategy<Value = u32> {
    prop_oneof![9 => Just(0), 1 => prop_oneof![Just(0x10), Just(0x20), Just(0x40), Just(0x80), Just(0xf0)]]
}

fn xattr() -> impl Strategy<Value = (CString, Vec<u8>)> {
    let named = ("(user|trusted|security)\\.[a-z]{1,20}", vec(any::<u8>(), 0..200))
        .prop_map(|(name, value)| (CString::new(name).expect("no NUL"), value));
    let access = Just((
        CString::from(c"system.posix_acl_access"),
        acl(&[(1, 6, !0), (2, 4, 70_000), (4, 4, !0), (16, 6, !0), (32, 0, !0)]),
    ));
    prop_oneof![
        6 => named,
        1 => Just((CString::from(c"security.capability"), capability())),
        1 => access,
    ]
}
