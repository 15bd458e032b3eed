//! Hostile input for the commands that look into images, take them apart and make them: an exit code of 0 or
//! 1, one error at most, nothing half written, nothing outside the directory.

mod support;

use std::fs;
use std::process::Command;

use support::{Work, member, text, trailer};

/// Runs a command on a file. Returns whether it succeeded; anything but success or one error fails the test.
#[track_caller]
fn survives(work: &Work, args: &[&str]) -> bool {
    let out = work.repot(args);
    let said = text(&out.stderr);
    let errors = said.lines().filter(|line| !line.contains(": warning: ")).count();
    match out.status.code() {
        Some(0) => assert_eq!(errors, 0, "{args:?}: {said}"),
        Some(1) => assert!(errors <= 1, "{args:?}: {said}"),
        other => panic!("{args:?}: {other:?}: {said}"),
    }
    out.status.success()
}

/// What every command makes of a file called `bad`.
#[track_caller]
fn all_survive(work: &Work) {
    for args in
        [&["ls", "-l", "bad"][..], &["cat", "bad", "bin/tool"], &["diff", "bad", "root"], &["inspect", "bad"]]
    {
        survives(work, args);
    }
    let done = survives(work, &["extract", "bad", "-C", "out"]);
    assert_eq!(work.path("out").exists(), done, "half of an image was left");
    if done {
        fs::remove_dir_all(work.path("out")).unwrap();
    }
}

/// An image of two segments.
fn image(work: &Work) -> Vec<u8> {
    work.run(
        "sh",
        &["-c", "cd root && find . | cpio -o -H newc --quiet > ../plain && zstd -q ../plain -o ../packed"],
    );
    [work.read("plain"), work.read("packed")].concat()
}

#[test]
fn cut_and_changed_images_are_errors_or_read() {
    let work = Work::new();
    fs::write(work.path("root/bin/tool"), vec![b'x'; 3000]).unwrap();
    let whole = image(&work);
    for part in 1..12 {
        fs::write(work.path("bad"), &whole[..whole.len() * part / 12]).unwrap();
        all_survive(&work);
    }
    // Every field of the first header, and some bytes of everything else.
    for at in (0..110).step_by(7).chain((110..whole.len()).step_by(whole.len() / 9)) {
        let mut changed = whole.clone();
        changed[at] ^= 0x15;
        fs::write(work.path("bad"), changed).unwrap();
        all_survive(&work);
    }
}

#[test]
fn cut_and_changed_programs_are_errors_or_read() {
    let work = Work::new();
    fs::write(work.path("root/bin/tool"), vec![b'x'; 3000]).unwrap();
    let inner = image(&work);
    let mut eif = b".eif\0\x04\0\0".to_vec();
    eif.extend([0; 18]);
    eif.extend([0, 1]);
    eif.resize(548, 0);
    eif[28..36].copy_from_slice(&548u64.to_be_bytes());
    eif[284..292].copy_from_slice(&(inner.len() as u64).to_be_bytes());
    eif.extend([0, 3, 0, 0]);
    eif.extend((inner.len() as u64).to_be_bytes());
    eif.extend(&inner);
    let mut kernel = vec![0; 0x400];
    kernel[0x1f1] = 1;
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    fs::write(work.path("vmlinux"), [&inner[..], &[0; 8], &(inner.len() as u64).to_le_bytes()].concat())
        .unwrap();
    let payload = work.run("gzip", &["-c", "vmlinux"]);
    kernel[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    kernel.extend(payload);
    for whole in [eif, kernel] {
        fs::write(work.path("bad"), &whole).unwrap();
        all_survive(&work);
        for at in (0..whole.len())
            .step_by(whole.len() / 16 + 1)
            .chain([26, 27, 28, 35, 284, 0x1f1, 0x248, 0x24b, 0x24f])
        {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            fs::write(work.path("bad"), changed).unwrap();
            all_survive(&work);
            fs::write(work.path("bad"), &whole[..at]).unwrap();
            all_survive(&work);
        }
    }
}

#[test]
fn what_has_no_end_is_no_image() {
    let work = Work::new();
    for args in [
        &["ls", "DEVICE"][..],
        &["cat", "DEVICE", "bin/tool"],
        &["extract", "DEVICE", "-C", "out"],
        &["inspect", "DEVICE"],
        &["append", "DEVICE", "-o", "out"],
    ] {
        for (device, why) in [("/dev/zero", "nothing but zeros in the first 64 MiB"), ("/dev/urandom", "")] {
            let args: Vec<&str> =
                args.iter().map(|word| if *word == "DEVICE" { device } else { word }).collect();
            let error = work.fails(&args);
            assert!(error.contains(why), "{args:?}: {error}");
            assert!(!work.path("out").exists(), "{args:?}");
        }
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure_of_the_program() {
    let work = Work::new();
    work.run("sh", &["-c", "(cd root && find . | cpio -o -H newc --quiet) > image"]);
    for args in
        [&["pack", "root", "-o", "packed"][..], &["inspect", "image"], &["ls", "image"], &["man"], &["dance"]]
    {
        // Both outputs are a pipe that nobody reads.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_repot"));
        command.args(args).current_dir(work.dir.path()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let status = command.env("REPOT_INIT", work.path("init")).status().unwrap();
        assert!(matches!(status.code(), Some(1 | 2 | 141)), "{args:?}: {status}");
    }
}

#[test]
fn nothing_is_written_outside_the_directory() {
    let work = Work::new();
    let names =
        ["../out-1", "/../out-2", "a/../../out-3", "link/out-4", "up/out-5", "dots/../../out-6", "absolute"];
    let mut archive = vec![
        member("a", 0o040_755, 1, 2, ""),
        member("link", 0o120_777, 2, 1, work.dir.path().to_str().unwrap()),
        member("up", 0o120_777, 3, 1, "../.."),
        member("dots", 0o040_755, 4, 2, ""),
        member("absolute", 0o120_777, 5, 1, work.path("out-7").to_str().unwrap()),
    ];
    for (number, name) in (10..).zip(names) {
        archive.push(member(name, 0o100_644, number, 1, "outside"));
        archive.push(member(&format!("{name}/below"), 0o100_644, number + 100, 1, "outside"));
        archive.push(member(&format!("{name}d"), 0o040_755, number + 200, 2, ""));
    }
    archive.push(trailer());
    fs::write(work.path("bad"), archive.concat()).unwrap();
    fs::create_dir(work.path("inside")).unwrap();
    let before = work.files();
    for more in [&[][..], &["--overwrite"], &["--parts"]] {
        let target = format!("inside/{}", more.len() + usize::from(more == ["--parts"]));
        fs::create_dir(work.path(&target)).unwrap();
        survives(&work, &[&["extract", "bad", "-C", &target], more].concat());
    }
    assert_eq!(work.files(), before);
    survives(&work, &["diff", "bad", "root"]);
    survives(&work, &["cat", "bad", "link/init"]);
    // What a link leads to is looked for in the image only.
    assert!(work.fails(&["cat", "bad", "absolute/x"]).contains("does not exist"));
}

#[test]
fn bombs_take_neither_memory_nor_space() {
    let work = Work::new();
    let header =
        format!("070701{:08x}{:08x}{}{:08x}{}", 1, 0o100_644, "0".repeat(32), 3u32 << 30, "0".repeat(32));
    fs::write(work.path("header"), format!("{header}{:08x}{:08x}zeros\0", 6, 0)).unwrap();
    work.run("sh", &["-c", "(cat header; head -c 3G /dev/zero) | zstd -q > bomb && rm header"]);
    let before = work.files();
    for command in ["ls -l bomb", "extract bomb -C out", "diff bomb root", "pack bomb -o out"] {
        let script = format!("ulimit -v 524288; exec \"$0\" {command}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_repot")]).current_dir(work.dir.path());
        let out = shell.output().unwrap();
        let said = text(&out.stderr);
        if command.starts_with("ls") {
            assert!(out.status.success() && text(&out.stdout).contains(" zeros"), "{said}");
        } else {
            assert!(said.contains("looks like a decompression bomb"), "{command}: {said}");
        }
        assert_eq!(work.files(), before, "{command}");
    }
}

/// Needs root: it mounts a small tmpfs in a private mount namespace. Skipped otherwise.
#[test]
fn a_full_disk_is_one_error_and_leaves_nothing() {
    let work = Work::new();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    }
    work.run("sh", &["-c", "mkdir full && head -c 3M /dev/urandom > root/noise && (cd root && find . | cpio -o -H newc --quiet) > image"]);
    work.run("sh", &["-c", "cd root && find . > ../manifest"]);
    for command in
        ["extract image -C full/out", "extract image -C full", "create manifest -C root -o full/image"]
    {
        let script = format!(
            "mount -t tmpfs -o size=2m none full && \"$0\" {command}; echo \"status $?\"; ls -A full"
        );
        let script = format!("exec 2>&1; {script}");
        let said = text(&work.run("unshare", &["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_repot")]));
        let lines: Vec<&str> = said.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].contains("No space left on device") && lines[1] == "status 1",
            "{command}: {said}"
        );
    }
}

#[test]
fn hostile_manifests_are_one_error() {
    let work = Work::new();
    work.run("mkfifo", &["root/fifo"]);
    let long = "x".repeat(5000);
    let name = format!("dir /{long} 755 0 0\n");
    for manifest in [
        &b"dir /a\x00b 755 0 0"[..],
        b"\xff\xfe\t\t\t\n",
        b"file /x root/fifo 644 99999999999 0",
        b"file /x ${} 644 0 0",
        b"file /x ${A${A}}${ 644 0 0",
        b"nod /x 644 0 0 c 4294967296 0",
        b"slink /x y 777 -1 0",
        b"#cpio: zstd -9 -9",
        b"\t\t\t\t\t\t\t\t",
        b"root\tTRAILER!!!",
        name.as_bytes(),
    ] {
        fs::write(work.path("manifest"), manifest).unwrap();
        let error = work.fails(&["create", "manifest", "-o", "out"]);
        assert!(error.starts_with("repot: manifest:"), "{error}");
        assert!(!work.path("out").exists());
    }
    // A pipe is not opened: it has no length.
    fs::write(work.path("manifest"), "file /x root/fifo 644 0 0\nfile /y /dev/zero 644 0 0\n").unwrap();
    work.done(&["create", "manifest", "-o", "out"]);
    assert_eq!(work.done(&["ls", "out"]), "x\ny\n");
}
