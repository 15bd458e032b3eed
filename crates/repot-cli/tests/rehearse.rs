//! `repot plan` and `repot rehearse`. The second needs root.

mod support;

use std::fs;

use support::{Work, text};

#[test]
fn plan_explains_pivot_root() {
    let work = Work::new();
    let found: serde_json::Value = serde_json::from_str(&work.done(&["plan", "--json"])).unwrap();
    assert!(found["pivot_root"]["works"].is_boolean(), "{found}");
    assert!(work.done(&["plan"]).contains("pivot_root"));
}

#[test]
fn a_rehearsal_finds_no_difference() {
    let work = Work::new();
    let mounts = fs::read("/proc/self/mountinfo").unwrap();
    if !rustix::process::geteuid().is_root() {
        assert!(work.fails(&["rehearse", "root"]).contains("needs root"));
        return;
    }
    work.run("setfattr", &["-n", "trusted.note", "-v", "kept", "root/bin/tool"]);
    work.run("mkfifo", &["root/fifo"]);
    work.run("mknod", &["root/dev/zero", "c", "1", "5"]);
    work.run("touch", &["-d", "1999-12-31 23:59:59.123456789", "root/bin"]);
    let said = work.done(&["rehearse", "root"]);
    assert!(said.contains("ramfs to tmpfs") && said.contains("tmpfs to tmpfs"), "{said}");
    assert_eq!(said.matches("none").count(), 2, "{said}");
    assert_eq!(text(&fs::read("/proc/self/mountinfo").unwrap()), text(&mounts));
}
