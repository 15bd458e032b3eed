//! Packing without root: owners and device nodes that the directory does not have.

mod support;

use std::process::Command;

use support::{Work, text};

fn listing(work: &Work, image: &str) -> String {
    text(&work.run("sh", &["-c", &format!("cpio -tvn --quiet < {image}")]))
}

#[test]
fn an_owner_is_given_to_everything_and_devices_come_from_a_list() {
    let work = Work::new();
    let list = "/dev/sda b 660 0 6 8 0 0 1 2\nnod /dev/zero 666 0 0 c 1 5\n/bin/tool f 4755 0 0 - - - - -\n";
    std::fs::write(work.path("list"), list).unwrap();
    work.done(&["pack", "root", "-o", "image", "-c", "none", "--owner", "7:8", "--devices", "list"]);
    let listing = listing(&work, "image");
    let line = |name: &str| {
        let found = listing.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap_or_default();
        found.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(line(".").contains(" 7 8 "), "{listing}");
    assert!(line("bin/link").is_empty() && listing.contains(" bin/link -> tool"), "{listing}");
    assert!(line("bin/tool").starts_with("-rwsr-xr-x 2 0 0 "), "{listing}");
    assert!(line("dev/sda0").starts_with("brw-rw---- 1 0 6 8, 0 "), "{listing}");
    assert!(line("dev/sda1").starts_with("brw-rw---- 1 0 6 8, 1 "), "{listing}");
    assert!(line("dev/zero").starts_with("crw-rw-rw- 1 0 0 1, 5 "), "{listing}");
    let error = work.fails(&["pack", "root", "-o", "image", "--devices", "init"]);
    assert!(error.contains("init:1: not a line of makedevs"), "{error}");
    assert_eq!(work.repot(&["pack", "root", "-o", "image", "--owner", "root"]).status.code(), Some(2));
}

#[test]
fn a_root_that_belongs_to_nobody_special_causes_a_warning() {
    let work = Work::new();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: changing owners needs root");
        return;
    }
    work.run("chown", &["-R", "1000:1001", "root"]);
    let said = work.done(&["pack", "root", "-o", "image"]);
    assert!(said.contains("warning: / belongs to 1000:1001 and not to root: use --owner 0:0"), "{said}");
    let said = work.done(&["pack", "root", "-o", "image", "--owner", "0:0"]);
    assert!(!said.contains("belongs"), "{said}");
}

/// The state that `fakeroot -s` saves, written here for a directory whose inodes are known.
#[test]
fn the_state_of_fakeroot_is_applied() {
    use std::os::unix::fs::MetadataExt;

    let work = Work::new();
    std::fs::write(work.path("root/dev/sda"), "").unwrap();
    let line = |name: &str, rest: &str| {
        let metadata = std::fs::metadata(work.path(name)).unwrap();
        format!("dev={:x},ino={},{rest}\n", metadata.dev(), metadata.ino())
    };
    let state = line("root/dev/sda", "mode=60640,uid=0,gid=6,nlink=1,rdev=2064")
        + &line("root/bin/tool", "mode=104755,uid=5,gid=0,nlink=2,rdev=0");
    std::fs::write(work.path("state"), state).unwrap();
    work.run("chown", &["-R", &format!("{}", rustix::process::geteuid().as_raw()), "root"]);
    work.done(&["pack", "root", "-o", "image", "-c", "none", "--fakeroot", "state"]);
    let listing = listing(&work, "image");
    let device = listing.lines().find(|line| line.ends_with(" dev/sda")).unwrap();
    assert!(device.starts_with("brw-r-----") && device.contains("8,  16"), "{device}");
    let tool = listing.lines().find(|line| line.ends_with(" bin/tool")).unwrap();
    let fields: Vec<_> = tool.split_whitespace().collect();
    assert_eq!(fields[..4], ["-rwsr-xr-x", "2", "5", "0"], "{tool}");
    // Everything else belongs to root.
    let other = listing.lines().find(|line| line.ends_with(" bin")).unwrap();
    assert_eq!(other.split_whitespace().collect::<Vec<_>>()[2..4], ["0", "0"], "{other}");
    work.run("cp", &["-r", "root", "copy"]);
    let error = work.fails(&["pack", "copy", "-o", "image", "--fakeroot", "state"]);
    assert!(error.contains("nothing in copy is in the state of fakeroot"), "{error}");
}

/// Under fakeroot and pseudo, the tar of the system reads the directory. Here it is a program that shows
/// other owners than the directory has.
#[test]
fn under_fakeroot_the_tar_of_the_system_reads() {
    let work = Work::new();
    let pack = |path: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_repot"));
        command.args(["pack", "root", "-o", "image", "-c", "none"]).current_dir(work.dir.path());
        command.env("REPOT_INIT", work.path("init")).env("FAKEROOTKEY", "1");
        command.env("PATH", path).output().unwrap()
    };
    let out = pack(&std::env::var("PATH").unwrap());
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(listing(&work, "image").contains(" bin/tool"));
    let out = pack("/nowhere");
    assert_eq!(out.status.code(), Some(1));
    let error = text(&out.stderr);
    assert!(error.contains("use `fakeroot tar -C root -c . | repot pack -`"), "{error}");
    // An owner that is given needs no fakeroot.
    let mut command = Command::new(env!("CARGO_BIN_EXE_repot"));
    command.args(["pack", "root", "-o", "image", "--owner", "0:0"]).current_dir(work.dir.path());
    let out =
        command.env("REPOT_INIT", work.path("init")).env("FAKEROOTKEY", "1").env("PATH", "/nowhere").output();
    assert!(out.unwrap().status.success());
}

/// Builds a root with owners and device nodes that only exist for the wrapper.
const BUILD: &str = "set -e; mkdir -p r/dev r/bin; echo x > r/bin/own; chown -R 0:0 r; chown 7:8 r/bin/own; chmod \
                     4711 r/bin/own; ln r/bin/own r/bin/also; mknod r/dev/ttyS0 c 4 64; mkfifo r/p; ";

/// Whether the listing of an image has what [`BUILD`] makes.
#[track_caller]
fn is_built(work: &Work, image: &str) {
    let listing = listing(work, image);
    let line = |name: &str| {
        let found = listing.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap_or_default();
        found.split_whitespace().take(4).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("."), "drwxr-xr-x 1 0 0", "{listing}");
    assert_eq!((line("bin/own"), line("bin/also")), ("-rws--x--x 2 7 8".into(), "-rws--x--x 2 7 8".into()));
    assert_eq!(line("dev/ttyS0"), "crw-r--r-- 1 0 0", "{listing}");
    assert_eq!(line("p"), "prw-r--r-- 1 0 0", "{listing}");
}

/// Runs a script in the directory as an ordinary user.
fn as_user(work: &Work, script: &str) -> std::process::Output {
    work.run("chown", &["-R", "1000:1000", "."]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "sh", "-c", script]);
    command.env("REPOT", env!("CARGO_BIN_EXE_repot")).env("REPOT_INIT", work.path("init"));
    command.env("HOME", work.dir.path()).env("PSEUDO_PREFIX", "/usr");
    command.env("PSEUDO_LOCALSTATEDIR", work.path("state.pseudo"));
    command.current_dir(work.dir.path()).output().unwrap()
}

fn has(program: &str) -> bool {
    let found = rustix::process::geteuid().is_root()
        && Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output()
            .is_ok_and(|out| out.status.success());
    if !found {
        eprintln!("skipped: needs root and {program}");
    }
    found
}

/// The real fakeroot, as an ordinary user: in its session, and later with the state that it saved.
#[test]
fn fakeroot_decides_what_an_ordinary_user_packs() {
    let work = Work::new();
    if !has("fakeroot") || !fakeroot_works(&work) {
        return;
    }
    let script = format!(
        "fakeroot -s state sh -c '{BUILD} exec $REPOT pack r -o inside -c none' && $REPOT pack r --fakeroot state -o \
         later -c none"
    );
    let out = as_user(&work, &script);
    assert!(out.status.success(), "{}", text(&out.stderr));
    is_built(&work, "inside");
    is_built(&work, "later");
}

/// The program under test lies where an ordinary user can start it.
fn fakeroot_works(work: &Work) -> bool {
    as_user(work, "$REPOT --version").status.success()
}

/// The real pseudo of Yocto, as an ordinary user: in its session, and later with its database.
#[test]
fn pseudo_decides_what_an_ordinary_user_packs() {
    let work = Work::new();
    if !has("pseudo") || !fakeroot_works(&work) {
        return;
    }
    let script = format!(
        "mkdir state.pseudo && pseudo sh -c '{BUILD} exec $REPOT pack r -o inside -c none' && pseudo $REPOT pack r -o \
         later -c none; code=$?; pseudo -S; exit $code"
    );
    let out = as_user(&work, &script);
    assert!(out.status.success(), "{}", text(&out.stderr));
    is_built(&work, "inside");
    is_built(&work, "later");
    let error = work.fails(&["pack", "r", "-o", "image", "--fakeroot", "state.pseudo/files.db"]);
    assert!(error.contains("is a database, probably of pseudo: pack under pseudo"), "{error}");
}
