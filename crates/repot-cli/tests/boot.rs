//! `repot boot` as far as no machine is needed: what it says when something is missing. The boots themselves are xtask's.

mod support;

use support::Work;

#[test]
fn what_is_missing_is_named() {
    let work = Work::new();
    assert!(work.fails(&["boot", "nothing", "--kernel", "init"]).contains("there is no image nothing"));
    work.done(&["pack", "root", "-o", "image"]);
    assert!(work.fails(&["boot", "image", "--kernel", "nothing"]).contains("there is no kernel nothing"));
}

#[test]
fn the_manual_and_the_completions_come_from_the_command_line() {
    let work = Work::new();
    for command in ["pack", "append", "inspect", "boot", "plan", "rehearse"] {
        assert!(work.done(&["man"]).contains(command));
        assert!(work.done(&["man", command]).contains(&format!("repot\\-{command}")));
    }
    assert!(work.done(&["completions", "zsh"]).starts_with("#compdef repot"));
    assert_eq!(work.repot(&["man", "nothing"]).status.code(), Some(2));
}
