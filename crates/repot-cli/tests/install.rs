//! `completions --install` and `man --install`: where the files go, and what stays untouched.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use support::{Work, text};

/// Runs the command as a user without root, at home in `home`.
fn user(work: &Work, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_repot"));
    command.args(args).current_dir(work.dir.path()).env("HOME", work.path("home")).env("SHELL", "/bin/zsh");
    command.env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
    if rustix::process::geteuid().is_root() {
        command.uid(1234).gid(1234);
    }
    command.output().unwrap()
}

fn home() -> Work {
    let work = Work::new();
    fs::create_dir(work.path("home")).unwrap();
    for folder in [work.dir.path(), &work.path("home")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    work
}

#[test]
fn completions_go_where_each_shell_looks() {
    let work = home();
    for (args, file, first) in [
        (
            &["completions", "bash", "--install"][..],
            ".local/share/bash-completion/completions/repot",
            "# Written by repot",
        ),
        (&["completions", "--install"], ".local/share/zsh/site-functions/_repot", "#compdef repot"),
        (&["completions", "fish", "--install"], ".config/fish/completions/repot.fish", "# Written by repot"),
    ] {
        // The second time replaces the first.
        for _ in 0..2 {
            let out = user(&work, args);
            assert!(out.status.success(), "{}", text(&out.stderr));
            assert_eq!(text(&out.stdout), format!("{}\n", work.path("home").join(file).display()));
        }
        assert!(text(&work.read(format!("home/{file}"))).starts_with(first));
    }
    let out = user(&work, &["completions", "elvish", "--install"]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    assert_eq!(user(&work, &["completions"]).status.code(), Some(2));
}

#[test]
fn all_pages_are_installed_or_none() {
    let work = home();
    let folder = work.path("home/.local/share/man/man1");
    fs::create_dir_all(&folder).unwrap();
    for folder in ["home/.local", "home/.local/share", "home/.local/share/man", "home/.local/share/man/man1"]
    {
        fs::set_permissions(work.path(folder), fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::write(folder.join("repot-pack.1"), "mine").unwrap();
    let out = user(&work, &["man", "--install"]);
    assert_eq!(out.status.code(), Some(1));
    let expected = format!(
        "repot: {} is not from repot: remove it, or use --force\n",
        folder.join("repot-pack.1").display()
    );
    assert_eq!(text(&out.stderr), expected);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    let out = user(&work, &["man", "--install", "--force"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let written = text(&out.stdout).lines().count();
    assert_eq!((written, fs::read_dir(&folder).unwrap().count()), (written, written));
    assert!(written > 14, "{written}");
    work.run("mandoc", &["-T", "lint", "-W", "warning", "home/.local/share/man/man1/repot-create.1"]);
    let page = text(&work.run("mandoc", &["-T", "ascii", "home/.local/share/man/man1/repot.1"]));
    assert!(page.contains("REPOT(1)") && page.contains("create"), "{page}");
    assert!(user(&work, &["man", "--install"]).status.success());
}

/// As root, in folders that a mount namespace of its own hides.
#[test]
fn as_root_the_files_are_for_all_users() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let work = Work::new();
    let repot = env!("CARGO_BIN_EXE_repot");
    let script = format!(
        "set -e; mount -t tmpfs t /usr/local/share; mount -t tmpfs t /etc; umask 077
         {repot} man --install > /dev/null
         for shell in bash zsh fish; do {repot} completions $shell --install; done
         cd /; find usr/local/share etc -type d ! -perm 755 ! -name share ! -name etc
         find usr/local/share etc -type f ! -perm 644
         test $(ls usr/local/share/man/man1 | wc -l) -gt 10
         echo mine > usr/local/share/man/man1/repot-ls.1; rm usr/local/share/man/man1/repot.1
         ! {repot} man --install 2>&1; cat usr/local/share/man/man1/repot-ls.1; ls usr/local/share/man/man1/repot.1 || true"
    );
    let said = text(&work.run("unshare", &["-m", "--propagation", "private", "sh", "-c", &script]));
    let expected = "/usr/local/share/bash-completion/completions/repot\n\
                    /usr/local/share/zsh/site-functions/_repot\n/etc/fish/completions/repot.fish\n\
                    repot: /usr/local/share/man/man1/repot-ls.1 is not from repot: remove it, or use --force\nmine\n";
    assert_eq!(said, expected);
}
