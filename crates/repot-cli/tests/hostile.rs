//! Hostile input and full disks: one error that names the file, nothing left behind, bounded memory and disk
//! space.

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use support::{Work, member, tar, text};
use tar::EntryType;

#[test]
fn a_decompression_bomb_is_refused_early() {
    let work = Work::new();
    // A file of 3 GiB of zeros, in 100 KB.
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(3 << 30);
    header.set_cksum();
    fs::write(work.path("header"), header.as_bytes()).unwrap();
    work.run(
        "sh",
        &["-c", "(cat header; head -c 3G /dev/zero; head -c 1024 /dev/zero) | zstd -q > bomb.tar.zst"],
    );
    fs::remove_file(work.path("header")).unwrap();
    let before = work.files();
    let error = work.fails(&["pack", "bomb.tar.zst", "-o", "image"]);
    assert!(error.contains("bomb.tar.zst: looks like a decompression bomb"), "{error}");
    assert_eq!(work.files(), before);
}

#[test]
fn inspecting_a_bomb_takes_no_memory() {
    let work = Work::new();
    // 512 MiB of zeros behind a header that makes them one member.
    let header =
        format!("070701{:08x}{:08x}{}{:08x}{}", 1, 0o100_755, "0".repeat(32), 1 << 29, "0".repeat(32));
    let header = header + &format!("{:08x}{:08x}zeros\0\0\0\0\0", 6, 0);
    fs::write(work.path("header"), &header[..116]).unwrap();
    work.run("sh", &["-c", "(cat header; head -c 512M /dev/zero) | zstd -q > image"]);
    // An address space that could not hold half of the member.
    let script = "ulimit -v 262144; exec \"$0\" inspect --json image";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_repot")]).current_dir(work.dir.path());
    let out = shell.output().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| {
        panic!("{}", text(&out.stderr));
    });
    assert_eq!(
        (&found["largest"][0]["bytes"], &found["damage"]),
        (&(1u64 << 29).into(), &serde_json::Value::Null)
    );
}

#[test]
fn sparse_files_take_no_space_and_keep_their_bytes() {
    let work = Work::new();
    fs::create_dir(work.path("holes")).unwrap();
    for name in ["a", "b", "c"] {
        let script = format!(
            "truncate -s 50M holes/{name} && printf {name} | dd of=holes/{name} bs=1 seek=30000000 conv=notrunc status=none"
        );
        work.run("sh", &["-c", &script]);
    }
    work.run("tar", &["-C", "holes", "--format=gnu", "-Scf", "holes.tar", "."]);
    assert!(fs::metadata(work.path("holes.tar")).unwrap().len() < 100_000);
    work.done(&["pack", "holes.tar", "-o", "image"]);
    work.done(&["pack", "holes", "-o", "same"]);
    assert!(work.read("image") == work.read("same"));
}

#[test]
fn a_killed_run_leaves_nothing() {
    let work = Work::new();
    let before = work.files();
    let mut command = Command::new(env!("CARGO_BIN_EXE_repot"));
    command
        .args(["pack", "-", "-o", "image"])
        .current_dir(work.dir.path())
        .env("REPOT_INIT", work.path("init"));
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // More than a pipe holds: once this returns, the program has started to read and write.
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &tar(&[("a", EntryType::Regular, &"x".repeat(1 << 20))])).unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert_eq!(work.files(), before);
}

/// Needs root: it mounts a small tmpfs in a private mount namespace. Skipped otherwise.
#[test]
fn no_space_left_is_one_error_about_the_output_and_leaves_nothing() {
    let work = Work::new();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    }
    // Random bytes do not compress.
    work.run("sh", &["-c", "mkdir full && head -c 3M /dev/urandom > root/noise && (cd root && find . | cpio -o -H newc --quiet) > initramfs"]);
    work.run(
        "sh",
        &["-c", "tar -C root -cf plain.tar . && tar -C root -czf packed.tgz . && cp plain.tar initramfs.tar"],
    );
    work.run("sh", &["-c", "printf '#!/bin/tool\\n' > root/init; chmod +x root/init; (cd root && echo init | cpio -o -H newc --quiet) >> initramfs"]);
    for (command, wants) in [
        ("pack root -o full/image", "repot: cannot write full/image: No space left on device"),
        (
            "pack root -o full/image --compress none",
            "repot: cannot write full/image: No space left on device",
        ),
        (
            "pack root -o full/image --compress gzip",
            "repot: cannot write full/image: No space left on device",
        ),
        (
            "pack root -o full/image --compress xz --level 0",
            "repot: cannot write full/image: No space left on device",
        ),
        ("pack root -o full/image --compress lz4", "repot: cannot write full/image: No space left on device"),
        ("pack plain.tar -o full/image", "repot: cannot write full/image: No space left on device"),
        (
            "pack packed.tgz -o full/image",
            "repot: cannot write a temporary file in full: No space left on device",
        ),
        ("append initramfs -o full/image", "repot: cannot write full/image: No space left on device"),
    ] {
        let script = format!(
            "mount -t tmpfs -o size=2m none full && REPOT_INIT=init \"$0\" {command}; echo \"status $?\"; ls -A full"
        );
        let out = work.run(
            "unshare",
            &["-m", "sh", "-c", &format!("exec 2>&1; {script}"), env!("CARGO_BIN_EXE_repot")],
        );
        let said = text(&out);
        assert_eq!(said, format!("{wants} (os error 28)\nstatus 1\n"), "{command}");
    }
}

#[test]
fn hostile_members_of_an_initramfs_are_read_as_the_kernel_would() {
    let work = Work::new();
    let archive = [
        member("../../outside", 0o100_644, 1, 1, "data"),
        member("/init", 0o100_755, 2, 1, "#!/bin/a\n"),
        member("bin", 0o040_755, 3, 2, ""),
        // A loop of links, and a link that leads out of the root.
        member("bin/a", 0o120_777, 4, 1, "b"),
        member("bin/b", 0o120_777, 5, 1, "../../../../bin/a"),
        // A file below a file, and a file with the number of a directory.
        member("x", 0o100_644, 6, 2, ""),
        member("x/y", 0o100_644, 6, 2, "data"),
        member("bin", 0o100_644, 3, 2, ""),
    ];
    fs::write(work.path("image"), archive.concat()).unwrap();
    let before = work.files();
    let found = work.inspect("image");
    let problems = found["problems"].to_string();
    assert!(problems.contains(r#"\"/init\" needs \"/bin/a\", which does not exist"#), "{problems}");
    assert!(problems.contains("\\\"x/y\\\" comes before its directory and is lost"), "{problems}");
    assert_eq!(work.files(), before);
}
