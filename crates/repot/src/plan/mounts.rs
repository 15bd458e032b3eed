//! Which mounts are taken off the old root, in which order, and which bind mounts of it cannot be made again.
//!
//! A bind mount of the old root shows a directory or file that goes away with the tree. So it is made again
//! from the same path in the new root. The mounts on it are taken off it first, and so is whatever hides one
//! of these. All other mounts move along with the mount that they are on.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::display::Quoted;
use crate::facts::Facts;
use crate::facts::mountinfo::Mount;

/// `MOVE_MOUNT_SET_GROUP`, with which a mount joins a peer group, came with this version.
pub(crate) const SET_GROUP: (u32, u32) = (5, 15);

/// Whether `mount` is a bind mount of the root's own file system.
pub(crate) fn is_own(facts: &Facts, mount: &Mount) -> bool {
    mount.id != facts.root_mount && root(facts).is_some_and(|root| root.device == mount.device)
}

fn root(facts: &Facts) -> Option<&Mount> {
    facts.mounts.iter().find(|mount| mount.id == facts.root_mount)
}

/// The mounts to take off the old root one by one, in the order in which they can be put on a root: a mount
/// after the one that it is on, and after those that it hides. `again` says that the bind mounts of the root
/// are made again.
pub(crate) fn pieces(facts: &Facts, again: bool) -> Vec<&Mount> {
    let all = in_order(facts);
    let parent = |at: usize| all.iter().position(|mount| mount.id == all[at].parent);
    let parents: Vec<Option<usize>> = (0..all.len()).map(parent).collect();
    let own = |at: usize| again && is_own(facts, all[at]);
    let mut single: Vec<bool> = (0..all.len()).map(|at| parents[at].is_none_or(own) || own(at)).collect();
    loop {
        // A path leads to a mount only while nothing hides any mount on the way.
        let mut passed = single.clone();
        for at in (0..all.len()).rev() {
            if let (true, Some(parent)) = (passed[at], parents[at]) {
                passed[parent] = true;
            }
        }
        let in_the_way = |at: &usize| {
            let hidden =
                |other| passed[other] && parents[other] == parents[*at] && hides(all[*at], all[other]);
            let on_top = |parent: usize| single[parent] && all[*at].point == all[parent].point;
            !single[*at] && ((0..all.len()).any(hidden) || parents[*at].is_some_and(on_top))
        };
        let more: Vec<usize> = (0..all.len()).filter(in_the_way).collect();
        if more.is_empty() {
            return (0..all.len()).filter(|at| single[*at]).map(|at| all[at]).collect();
        }
        more.iter().for_each(|at| single[*at] = true);
    }
}

/// All mounts below the root, each after the one that it is on and after those that it hides. What is mounted
/// over the root itself is not among them: no path of this process leads there.
fn in_order(facts: &Facts) -> Vec<&Mount> {
    let mut order = Vec::new();
    let mut waiting: Vec<(u64, Option<&Mount>)> = vec![(facts.root_mount, None)];
    while let Some((id, mount)) = waiting.pop() {
        order.extend(mount);
        let above =
            |child: &&Mount| child.parent == id && child.id != id && (mount.is_some() || child.point != b"/");
        // The last one is the next: the one with the longest path, which no other child hides.
        let first = waiting.len();
        for child in facts.mounts.iter().filter(above) {
            let is_longer = |(_, other): &(u64, Option<&Mount>)| {
                other.is_some_and(|other| other.point.len() > child.point.len())
            };
            let at = waiting[first..].iter().position(is_longer).map_or(waiting.len(), |at| first + at);
            waiting.insert(at, (child.id, Some(child)));
        }
    }
    order
}

/// Whether `outer` is mounted above the mount point of `inner`.
fn hides(outer: &Mount, inner: &Mount) -> bool {
    inner.point.strip_prefix(outer.point.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Each bind mount of the root, in a clause.
pub(super) fn binds(facts: &Facts) -> impl Iterator<Item = String> {
    facts.mounts.iter().filter(|mount| is_own(facts, mount)).map(|mount| clause(mount, ""))
}

fn clause(mount: &Mount, why: &str) -> String {
    format!("{} is a bind mount of {} in it{why}", Quoted(&mount.point), Quoted(&mount.root))
}

/// Why the bind mounts of the root cannot be made again, in a clause for each reason; empty if all can.
pub(super) fn obstacles(facts: &Facts) -> Vec<String> {
    let own: Vec<&Mount> = facts.mounts.iter().filter(|mount| is_own(facts, mount)).collect();
    if own.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<String> =
        own.iter().filter_map(|mount| Some(clause(mount, obstacle(facts, mount)?))).collect();
    for mount in pieces(facts, true) {
        // The kernel moves no mount away from a shared one. That can be made private, unless a path to it
        // leads to the one on top.
        let parent = facts.mounts.iter().find(|other| other.id == mount.parent);
        let Some(parent) = parent.filter(|parent| parent.id != facts.root_mount && parent.group != 0) else {
            continue;
        };
        if parent.point == mount.point {
            found.push(format!("{} has several mounts, and a shared one below", Quoted(&mount.point)));
        } else if !is_own(facts, parent) && facts.kernel < SET_GROUP && is_entangled(facts, parent) {
            let (parent, point) = (Quoted(&parent.point), Quoted(&mount.point));
            found.push(format!("{parent}, which {point} is on, shares mounts with another"));
        }
    }
    found
}

/// Why one bind mount of the root cannot be made again.
fn obstacle(facts: &Facts, mount: &Mount) -> Option<&'static str> {
    let sharing = || facts.mounts.iter().filter(|other| is_peer(other, mount.group));
    let leads = |group: u64| {
        let of_root = root(facts).is_some_and(|root| is_peer(root, group));
        of_root || facts.mounts.iter().any(|other| is_own(facts, other) && is_peer(other, group))
    };
    let shows_all = |group: u64| {
        let top = sharing().min_by_key(|peer| peer.root.len());
        let member = |other: &&Mount| is_peer(other, group) || (group != 0 && other.master == group);
        top.is_none_or(|top| facts.mounts.iter().filter(member).all(|other| is_in(&other.root, &top.root)))
    };
    if !facts.others.is_empty() {
        Some(", and other processes may use it")
    } else if facts.lost.contains(&mount.id) {
        Some(", where that cannot be found any more")
    } else if !in_order(facts).iter().any(|other| other.id == mount.id) {
        Some(", on a mount that covers it")
    } else if mount.options.split(|byte| *byte == b',').any(|option| option == b"idmapped") {
        Some(", with mapped owners")
    } else if facts.kernel < SET_GROUP && is_entangled(facts, mount) {
        Some(", and it shares mounts with another")
    } else if mount.master != 0 && !leads(mount.master) {
        Some(", and it receives mounts from elsewhere")
    } else if !shows_all(mount.group) {
        Some(", and it shares mounts with one that shows another part")
    } else {
        None
    }
}

fn is_peer(mount: &Mount, group: u64) -> bool {
    group != 0 && mount.group == group
}

/// Whether mounts propagate between `mount` and another one.
fn is_entangled(facts: &Facts, mount: &Mount) -> bool {
    let tied =
        |other: &Mount| is_peer(other, mount.group) || (mount.group != 0 && other.master == mount.group);
    mount.master != 0 || facts.mounts.iter().any(|other| other.id != mount.id && tied(other))
}

/// Whether `path` is `top` or below it.
fn is_in(path: &[u8], top: &[u8]) -> bool {
    top == b"/" || path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::mountinfo::parse;

    fn facts(mounts: &str) -> Facts {
        let text = format!("1 1 0:2 / / rw - rootfs rootfs rw\n{mounts}");
        Facts { root_mount: 1, mounts: parse(text.as_bytes()), kernel: (6, 12), ..Facts::default() }
    }

    fn ids(mounts: &str, again: bool) -> Vec<u64> {
        pieces(&facts(mounts), again).iter().map(|mount| mount.id).collect()
    }

    #[test]
    fn mounts_move_whole_without_binds_of_the_root() {
        let mounts = "20 1 0:20 / /proc rw - proc p rw\n21 1 0:21 / /run rw - tmpfs t rw\n\
            22 21 0:22 / /run/lock rw - tmpfs t rw\n23 1 0:21 /x /srv rw - tmpfs t rw\n";
        assert_eq!(ids(mounts, true), [20, 23, 21]);
    }

    #[test]
    fn stacked_mounts_are_taken_off_one_by_one() {
        let mounts = "20 1 0:20 / /m rw - tmpfs t rw\n21 20 0:21 / /m rw - tmpfs t rw\n\
            22 21 0:22 / /m/in rw - tmpfs t rw\n";
        assert_eq!(ids(mounts, false), [20, 21]);
    }

    #[test]
    fn what_is_hidden_is_put_before_what_hides_it() {
        let mounts = "20 1 0:20 / /outer rw - tmpfs t rw\n21 1 0:21 / /outer/inner rw - tmpfs t rw\n";
        assert_eq!(ids(mounts, false), [21, 20]);
    }

    #[test]
    fn mounts_on_a_bind_are_taken_off_it() {
        let mounts = "20 1 0:2 /data /srv rw - rootfs r rw\n21 20 0:21 / /srv/disk rw - tmpfs t rw\n\
            22 21 0:22 / /srv/disk/in rw - tmpfs t rw\n";
        assert_eq!(ids(mounts, true), [20, 21]);
        // A bind of the whole root takes everything along.
        assert_eq!(ids(mounts, false), [20]);
    }

    /// A bind below a mount that moves whole; beside it, a mount that hides it.
    #[test]
    fn what_hides_a_bind_below_a_mount_is_taken_off_too() {
        let mounts = "20 1 0:20 / /run rw - tmpfs t rw\n21 20 0:2 /data /run/a/b rw - rootfs r rw\n\
            22 20 0:22 / /run/a rw - tmpfs t rw\n23 20 0:23 / /run/other rw - tmpfs t rw\n";
        assert_eq!(ids(mounts, true), [20, 21, 22]);
        assert_eq!(ids(mounts, false), [20]);
        // The same one level up.
        let mounts = "20 1 0:20 / /run rw - tmpfs t rw\n21 20 0:21 / /run/a rw - tmpfs t rw\n\
            22 21 0:2 /data /run/a/b rw - rootfs r rw\n23 20 0:23 / /run rw - tmpfs t rw\n";
        assert_eq!(ids(mounts, true), [20, 22, 23]);
    }

    #[test]
    fn plain_binds_are_no_obstacle() {
        let mounts = "20 1 0:2 /self /self rw - rootfs r rw\n21 1 0:2 / /mnt ro,nosuid - rootfs r rw\n\
            22 20 0:2 /conf /self/file rw shared:5 - rootfs r rw\n";
        assert_eq!(obstacles(&facts(mounts)), [""; 0]);
    }

    #[test]
    fn each_obstacle_has_its_reason() {
        let one = |line: &str, change: &dyn Fn(&mut Facts)| {
            let mut facts = facts(line);
            change(&mut facts);
            obstacles(&facts)
        };
        let plain = "20 1 0:2 /data /srv rw - rootfs r rw\n";
        let start = "\"/srv\" is a bind mount of \"/data\" in it";
        let nothing = |_: &mut Facts| ();
        let others = |facts: &mut Facts| facts.others.push("sh[2]".into());
        assert_eq!(one(plain, &others), [format!("{start}, and other processes may use it")]);
        let lost = |facts: &mut Facts| facts.lost.push(20);
        assert_eq!(one(plain, &lost), [format!("{start}, where that cannot be found any more")]);
        let mapped = "20 1 0:2 /data /srv rw,relatime,idmapped - rootfs r rw\n";
        assert_eq!(one(mapped, &nothing), [format!("{start}, with mapped owners")]);
        let slave = "20 1 0:2 /data /srv rw master:9 - rootfs r rw\n";
        assert_eq!(one(slave, &nothing), [format!("{start}, and it receives mounts from elsewhere")]);
        let over = "19 1 0:19 / / rw - tmpfs t rw\n20 19 0:2 /data /srv rw - rootfs r rw\n";
        assert_eq!(one(over, &nothing), [format!("{start}, on a mount that covers it")]);
    }

    #[test]
    fn peers_need_a_kernel_that_can_join_groups() {
        let mounts = "20 1 0:2 /a /b rw shared:4 - rootfs r rw\n21 1 0:2 /a/x /c rw shared:4 - rootfs r rw\n\
            22 1 0:2 /a /d rw master:4 - rootfs r rw\n";
        assert_eq!(obstacles(&facts(mounts)), [""; 0]);
        let old = Facts { kernel: (5, 10), ..facts(mounts) };
        assert_eq!(obstacles(&old).len(), 3);
        // Alone in its group, it is only made shared again.
        let alone = Facts { kernel: (5, 10), ..facts("20 1 0:2 /a /b rw shared:4 - rootfs r rw\n") };
        assert_eq!(obstacles(&alone), [""; 0]);
        let apart = "20 1 0:2 /a /b rw shared:4 - rootfs r rw\n21 1 0:2 /x /c rw shared:4 - rootfs r rw\n";
        assert_eq!(obstacles(&facts(apart)).len(), 2);
    }

    #[test]
    fn a_shared_mount_below_another_cannot_be_reached() {
        let mounts = "20 1 0:2 /a /a rw shared:4 - rootfs r rw\n21 20 0:21 / /a rw - tmpfs t rw\n";
        assert_eq!(obstacles(&facts(mounts)), ["\"/a\" has several mounts, and a shared one below"]);
    }
}
