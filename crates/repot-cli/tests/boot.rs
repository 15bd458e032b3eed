//! `repot boot` without a machine: its errors. The boots themselves are tests of the workspace.

mod support;

use std::fs;

use support::Work;

#[test]
fn what_is_missing_is_named() {
    let work = Work::new();
    assert!(
        work.fails(&["boot", "nothing", "--kernel", "init"])
            .contains("cannot open the image nothing: No such file")
    );
    work.done(&["pack", "root", "-o", "image"]);
    assert!(
        work.fails(&["boot", "image", "--kernel", "nothing"])
            .contains("cannot open the kernel nothing: No such file")
    );
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_repot"));
    command.args(["boot", "image", "--kernel", "init", "--console", "console"]).current_dir(work.dir.path());
    let out = command.env("PATH", "").output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        said.contains("repot: qemu-system-")
            && said.contains(" is not installed (Debian: apt install qemu-system-"),
        "{said}"
    );
}

#[test]
fn the_manual_and_the_completions_come_from_the_command_line() {
    let work = Work::new();
    for command in [
        "pack", "append", "inspect", "boot", "plan", "rehearse", "ls", "cat", "extract", "diff", "create",
        "init",
    ] {
        assert!(work.done(&["man"]).contains(command));
        let page = work.done(&["man", command]);
        assert!(page.contains(&format!("repot\\-{command}")) && page.contains(".SH EXAMPLES"), "{page}");
        assert!(work.done(&[command, "--help"]).contains("\nExample"), "{command}");
    }
    let pages = ["", "pack", "append", "inspect", "boot", "plan", "rehearse", "create", "completions", "man"];
    for page in pages {
        let args: Vec<_> = ["man", page].into_iter().filter(|word| !word.is_empty()).collect();
        fs::write(work.path("page"), work.done(&args)).unwrap();
        // mandoc fails if it has any warning.
        work.run("sh", &["-c", "mandoc -Tlint -Wwarning page >&2"]);
    }
    assert!(work.done(&["completions", "zsh"]).starts_with("#compdef repot"));
    assert_eq!(work.repot(&["man", "nothing"]).status.code(), Some(2));
}
