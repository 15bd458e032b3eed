//! Which method each situation gets.

use super::{
    MIB, beside, bound, check, disk, facts, itself, mode, options, others, planned, rehomed, tmpfs, with,
};
use repot::facts::{Facts, RootFs};
use repot::options::{Amount, Mode, Options};
use repot::plan::{Method, Plan};

#[test]
fn every_situation_has_its_method() {
    let short = |facts: &mut Facts| facts.memory.available = MIB;
    let nullfs = |facts: &mut Facts| facts.parentless = false;
    let other = |magic| {
        with(|facts| {
            disk(facts);
            facts.rootfs = RootFs::Other(magic);
        })
    };
    let size = |amount| options(|options| options.size = Some(amount));
    let inodes = |amount| options(|options| options.nr_inodes = Some(Amount::Exactly(amount)));
    check(&[
        ("initial ramfs", facts(), mode(Mode::Auto), Method::Move, "/ is the initial ramfs"),
        ("initial tmpfs", with(tmpfs), mode(Mode::Auto), Method::Move, "/ is the initial tmpfs"),
        ("initial ramfs on nullfs", with(nullfs), mode(Mode::Auto), Method::Move, "/ is the initial ramfs"),
        ("re-homed before", with(rehomed), mode(Mode::Auto), Method::Stay, "/ is not the initial root"),
        ("re-homed, again", with(rehomed), mode(Mode::Move), Method::Move, "as configured"),
        ("disk", with(disk), mode(Mode::Auto), Method::Stay, "/ is neither"),
        ("disk, move", with(disk), mode(Mode::Move), Method::Stay, "/ is neither"),
        ("disk, bind", with(disk), mode(Mode::Bind), Method::Bind, "as configured"),
        ("iso", other(0x9660), mode(Mode::Auto), Method::Stay, "/ is neither"),
        ("overlay", other(0x794c_7630), mode(Mode::Auto), Method::Stay, "/ is neither"),
        ("stay", facts(), mode(Mode::Stay), Method::Stay, "as configured"),
        ("bind", facts(), mode(Mode::Bind), Method::Bind, "as configured"),
        ("short of memory", with(short), mode(Mode::Auto), Method::Bind, "the move needs"),
        ("short of memory, move", with(short), mode(Mode::Move), Method::Bind, "the move needs"),
        (
            "short of memory on nullfs",
            with(|f| {
                short(f);
                nullfs(f)
            }),
            mode(Mode::Auto),
            Method::Stay,
            "the move needs",
        ),
        (
            "size too small",
            facts(),
            size(Amount::Exactly(99 * MIB)),
            Method::Bind,
            "size=103809024 is too small",
        ),
        ("size too small in percent", facts(), size(Amount::Percent(9)), Method::Bind, "is too small"),
        ("size that fits", facts(), size(Amount::Exactly(101 * MIB)), Method::Move, "/ is"),
        ("no limit", facts(), size(Amount::Exactly(0)), Method::Move, "/ is"),
        ("too few inodes", facts(), inodes(5000), Method::Bind, "nr_inodes=5000 is too small"),
        ("inodes that fit", facts(), inodes(5100), Method::Move, "/ is"),
    ]);
}

#[test]
fn what_else_uses_the_root_decides() {
    let largest = |facts: &mut Facts| {
        (facts.survey.bytes, facts.survey.largest) = (500 * MIB, 500 * MIB);
        facts.memory.available = 300 * MIB;
    };
    let few = |facts: &mut Facts| facts.descriptors = 255;
    let unseen = |facts: &mut Facts| facts.unseen = Some("facts: getdents64: EIO".into());
    let blind = |facts: &mut Facts| {
        unseen(facts);
        facts.root_mount = 0;
    };
    check(&[
        (
            "others",
            with(others),
            mode(Mode::Auto),
            Method::Bind,
            "2 other processes run from /: dropbear[2] sh[3]",
        ),
        ("others, move", with(others), mode(Mode::Move), Method::Bind, "2 other processes"),
        ("others are ignored", with(others), beside(Mode::Move), Method::Move, "as configured"),
        ("no room for a whole file", with(largest), beside(Mode::Move), Method::Bind, "the move needs"),
        ("the same, truncated", with(largest), mode(Mode::Move), Method::Move, "as configured"),
        ("few descriptors", with(few), mode(Mode::Auto), Method::Bind, "the move needs 256 descriptors"),
        ("no survey", with(unseen), mode(Mode::Auto), Method::Bind, "facts: getdents64"),
        ("no survey, move", with(unseen), mode(Mode::Move), Method::Bind, "facts: getdents64"),
        ("no mounts", with(blind), mode(Mode::Bind), Method::Stay, "facts: getdents64"),
        ("others are not ignored", with(others), beside(Mode::Auto), Method::Bind, "2 other processes"),
        ("loop device", with(bound), mode(Mode::Auto), Method::Bind, "/ is in use: loop0 has"),
        ("loop device, move", with(bound), beside(Mode::Move), Method::Bind, "in use: "),
        (
            "directory",
            with(|f| f.root_mount = 0),
            mode(Mode::Move),
            Method::Stay,
            "/ is not the root of a mount",
        ),
    ]);
}

#[test]
fn bind_mounts_of_the_root_move_unless_they_cannot_be_made_again() {
    let decided = |change: fn(&mut Facts), options: &Options| {
        let facts = with(|facts| {
            itself(facts);
            change(facts);
        });
        let Plan { method, reason, .. } = planned(&facts, options);
        (method, reason)
    };
    let start = "/ is in use: \"/self\" is a bind mount of \"/self\" in it";
    assert_eq!(decided(|_| (), &mode(Mode::Auto)), (Method::Move, "/ is the initial ramfs".to_string()));
    let used = (Method::Bind, format!("{start}, and other processes may use it"));
    assert_eq!(decided(others, &beside(Mode::Move)), used);
    // A mount of what was removed cannot be carried by a bind either.
    let lost = (Method::Stay, format!("{start}, where that cannot be found any more"));
    assert_eq!(decided(|facts| facts.lost.push(20), &mode(Mode::Move)), lost);
}
