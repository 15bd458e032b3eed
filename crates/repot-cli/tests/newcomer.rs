//! What somebody meets who tries the tool for the first time.

mod support;

use std::fs;

use support::{Work, text};

#[test]
fn the_name_of_the_image_chooses_its_compression() {
    let work = Work::new();
    for (name, compression) in
        [("i.xz", "xz"), ("i.gz", "gzip"), ("i.lz4", "lz4"), ("i.zst", "zstd"), ("i.img", "zstd")]
    {
        work.done(&["pack", "root", "-o", name]);
        assert_eq!(work.inspect(name)["segments"][0]["compression"], compression);
    }
    // What is asked for counts.
    work.done(&["pack", "root", "-o", "j.xz", "--compress", "gzip"]);
    assert_eq!(work.inspect("j.xz")["segments"][0]["compression"], "gzip");
}

#[test]
fn a_dry_run_says_the_same_and_writes_nothing() {
    let work = Work::new();
    let before = work.files();
    let dry = work.repot(&["pack", "root", "-o", "image", "--json", "--dry-run"]).stdout;
    assert_eq!(work.files(), before);
    assert_eq!(text(&dry), text(&work.repot(&["pack", "root", "-o", "image", "--json"]).stdout));
    let image = work.read("image");
    work.run("sh", &["-c", "echo more > root/more"]);
    work.done(&["pack", "root", "-o", "image", "--dry-run"]);
    assert!(work.read("image") == image);
    assert!(work.done(&["pack", "root", "-o", "-", "--dry-run"]).contains("RAM to boot"));
}

#[test]
fn append_to_a_root_without_an_init_of_its_own() {
    let work = Work::new();
    fs::create_dir(work.path("root/sbin")).unwrap();
    fs::copy(work.path("init"), work.path("root/sbin/init")).unwrap();
    work.run(
        "sh",
        &[
            "-c",
            "printf '\\177ELF\\2\\1\\1' > elf; head -c 64 init > root/sbin/init; chmod 755 root/sbin/init",
        ],
    );
    work.run("sh", &["-c", "cd root && find . | cpio -o -H newc --quiet > ../image"]);
    work.done(&["append", "image", "-o", "appended"]);
    let found = work.inspect("appended");
    assert_eq!((&found["repot"], &found["init"]), (&true.into(), &"/sbin/init".into()));
    // Without any init there is nothing that could run.
    work.run("sh", &["-c", "rm -r root/sbin; cd root && find . | cpio -o -H newc --quiet > ../image"]);
    let error = work.fails(&["append", "image", "-o", "none"]);
    assert!(error.contains("the image has no /init to run after the move, and no /sbin/init"), "{error}");
}

#[test]
fn plan_without_the_right_to_mount_says_what_it_can() {
    let work = Work::new();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: it needs root to give up a capability");
        return;
    }
    let out = work.run(
        "setpriv",
        &["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", env!("CARGO_BIN_EXE_repot"), "plan"],
    );
    let said = text(&out);
    assert!(said.contains("pivot_root") && said.contains("needs CAP_SYS_ADMIN"), "{said}");
}

#[test]
fn the_version_says_which_programs_are_inside() {
    let work = Work::new();
    let whole = text(&work.repot(&["--version"]).stdout);
    // What the tests run was built without REPOT_EMBED.
    assert!(whole.ends_with("\ninside: nothing; programs are found on disk\n"), "{whole}");
    assert!(whole.starts_with(text(&work.repot(&["-V"]).stdout).trim_end()));
}

/// As in a chroot that nobody has prepared.
#[test]
fn without_proc_a_directory_is_not_packed_and_the_error_says_why() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let work = Work::new();
    let script = "umount -l /proc && \"$0\" pack root -o image --init init 2>&1; echo status $?";
    let words = ["-m", "--propagation", "private", "sh", "-c", script, env!("CARGO_BIN_EXE_repot")];
    let said = text(&work.run("unshare", &words));
    assert!(said.contains("attributes of root: /proc is not mounted (mount -t proc proc /proc)"), "{said}");
    assert!(said.contains("status 1") && !work.path("image").exists(), "{said}");
}
