//! `create`: lists of `gen_init_cpio` and manifests of 3cpio, compared with cpio and with the bytes that the
//! kernel's program writes.

mod support;

use std::fs;
use std::process::Command;

use support::{Work, text};

/// Runs `create` with a manifest. `SOURCE_DATE_EPOCH` is 1600000000, and `M` the directory `root`.
fn create(work: &Work, manifest: &str, args: &[&str]) -> (bool, String) {
    fs::write(work.path("manifest"), manifest).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_repot"))
        .args([&["create", "manifest", "-o", "image"], args].concat())
        .current_dir(work.dir.path())
        .env("SOURCE_DATE_EPOCH", "1600000000")
        .env("M", "root")
        .output()
        .unwrap();
    (out.status.success(), text(&out.stderr))
}

/// The header and the name of a member as `gen_init_cpio` writes them.
fn header(name: &str, numbers: [u32; 11]) -> Vec<u8> {
    let [ino, mode, uid, gid, nlink, mtime, size, major, minor, rmajor, rminor] = numbers;
    let namesize = u32::try_from(name.len() + 1).unwrap();
    let fields = [ino, mode, uid, gid, nlink, mtime, size, major, minor, rmajor, rminor, namesize, 0];
    let mut bytes = b"070701".to_vec();
    bytes.extend(fields.iter().flat_map(|field| format!("{field:08X}").into_bytes()));
    bytes.extend([name.as_bytes(), b"\0"].concat());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[test]
fn a_list_gives_the_bytes_of_gen_init_cpio() {
    let work = Work::new();
    fs::write(work.path("root/five"), "five\n").unwrap();
    work.run("touch", &["-d", "@1500000000", "root/five"]);
    let list = "# a comment\n\ndir /dev 0755 0 0\nnod /dev/console 0600 0 5 c 5 1\n  nod dev/sda 640 0 6 b 8 0\n\
                file /a ${M}/five 0644 1 2 /b /c\nslink /init a 0777 0 0\npipe\t/p 0600 3 4\nsock /s 0600 0 0\n\
                file /null /dev/null 0400 0 0\n";
    assert_eq!(create(&work, list, &[]), (true, String::new()));
    let (now, then) = (1_600_000_000, 1_500_000_000);
    let mut expected = Vec::new();
    expected.extend(header("dev", [721, 0o040_755, 0, 0, 2, now, 0, 3, 1, 0, 0]));
    expected.extend(header("dev/console", [722, 0o020_600, 0, 5, 1, now, 0, 3, 1, 5, 1]));
    expected.extend(header("dev/sda", [723, 0o060_640, 0, 6, 1, now, 0, 3, 1, 8, 0]));
    expected.extend(header("a", [724, 0o100_644, 1, 2, 3, then, 0, 3, 1, 0, 0]));
    expected.extend(header("b", [724, 0o100_644, 1, 2, 3, then, 0, 3, 1, 0, 0]));
    expected.extend(header("c", [724, 0o100_644, 1, 2, 3, then, 5, 3, 1, 0, 0]));
    expected.extend(b"five\n\0\0\0");
    expected.extend(header("init", [725, 0o120_777, 0, 0, 1, now, 2, 3, 1, 0, 0]));
    expected.extend(b"a\0\0\0");
    expected.extend(header("p", [726, 0o010_600, 3, 4, 2, now, 0, 3, 1, 0, 0]));
    expected.extend(header("s", [727, 0o140_600, 0, 0, 2, now, 0, 3, 1, 0, 0]));
    let image = work.read("image");
    assert!(image.starts_with(&expected), "{}", image.escape_ascii());
    // The time of /dev/null is that of this machine's.
    assert!(image[expected.len()..].starts_with(b"070701000002D800008100"), "{}", image.escape_ascii());
    assert_eq!(image.len() % 512, 0);
    let names = text(&work.run("cpio", &["-t", "--quiet", "-F", "image"]));
    assert_eq!(names, "dev\ndev/console\ndev/sda\na\nb\nc\ninit\np\ns\nnull\n");
    assert_eq!(work.done(&["cat", "image", "b"]), "five\n");
    // The NUL behind the target is no part of it.
    assert!(work.done(&["ls", "-l", "image"]).contains(" init -> a\n"));
    assert_eq!(work.done(&["cat", "image", "init"]), "five\n");
    work.done(&["extract", "image", "-C", "out", "init", "c", "b"]);
    assert_eq!(fs::read_link(work.path("out/init")).unwrap().to_str(), Some("a"));
    work.done(&["extract", "image", "-C", "whole"]);
    assert_eq!(work.read("whole/init"), b"five\n");
}

#[test]
fn a_table_takes_from_files_what_it_does_not_say() {
    let work = Work::new();
    work.run("touch", &["-d", "@1500000000", "root/bin/tool"]);
    work.run("chmod", &["4751", "root/bin/tool"]);
    let table = "#cpio\nroot\t.\nroot/bin\tbin\troot/bin/tool\n";
    let (done, error) = create(&work, table, &[]);
    assert!(
        !done
            && error
                == "repot: manifest:3: unknown type root/bin/tool: file, dir, block, char, link, fifo or sock\n",
        "{error}"
    );
    let table = "# comment\n.\t.\nbin\nbin/tool\nbin/link\t-\t-\t\t7\t8\n./bin/alias\n\
                 -\tdev\tdir\t755\t0\t0\t1\n\tdev/null\tchar\t666\t0\t0\t2\t1\t3\n-\tx\tlink\t777\t0\t0\t3\tbin/tool\n\
                 bin/tool\thead\tfile\t600\t5\t6\t7\t3\n-\tempty\tfile\t600\t5\t6\t7\t0\n\
                 #cpio: zstd -3\nbin\nbin/tool\tbin/other\n";
    assert_eq!(create(&work, table, &["-C", "root"]), (true, String::new()));
    let list = work.done(&["ls", "-l", "image"]);
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    let of = |name: &str| {
        lines.iter().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{name}: {list}")).clone()
    };
    assert_eq!(of("bin/tool")[..3], ["1", "-rwsr-x--x", "2"]);
    assert_eq!(of("bin/alias")[..3], ["1", "-rwsr-x--x", "2"]);
    assert_eq!(of("bin/link")[3..5], ["7", "8"]);
    assert_eq!(of("dev/null")[5..7], ["1,", "3"]);
    assert_eq!((of("x")[8..].join(" "), of("head")[5]), ("x -> bin/tool".to_string(), "3"));
    // Hard links are those of a segment.
    assert_eq!(of("bin/other")[..3], ["2", "-rwsr-x--x", "1"]);
    let segments = &work.inspect("image")["segments"];
    assert_eq!((&segments[0]["compression"], &segments[1]["compression"]), (&"none".into(), &"zstd".into()));
    work.run("sh", &["-c", "mkdir theirs && cd theirs && cpio -idm --quiet 'bin/*' < ../image"]);
    assert_eq!((work.read("theirs/bin/tool").len(), work.read("theirs/bin/alias").len()), (70_000, 70_000));
    assert_eq!(work.done(&["cat", "image", "bin/tool"]).len(), 70_000);
}

#[test]
fn contents_begin_at_the_alignment() {
    let work = Work::new();
    fs::write(work.path("root/small"), "small").unwrap();
    fs::write(work.path("root/large"), vec![b'l'; 300_001]).unwrap();
    let table = "small\nlarge\n#cpio: gzip\nlarge\n#cpio\nsmall\n";
    assert_eq!(create(&work, table, &["-C", "root", "--align", "4096"]), (true, String::new()));
    let image = work.read("image");
    for (contents, wanted) in [(&b"small"[..], 2), (b"lllllllllll", 1)] {
        let all = image.windows(contents.len()).enumerate().filter(|(_, bytes)| *bytes == contents);
        let aligned = all.filter(|(at, _)| at % 4096 == 0).count();
        assert!(aligned >= wanted, "{aligned}: {}", text(contents));
    }
    assert_eq!(text(&work.run("cpio", &["-t", "--quiet", "-F", "image"])), "small\nlarge\n");
    work.done(&["extract", "image", "-C", "out"]);
    assert!(work.read("out/large") == work.read("root/large") && work.read("out/small") == b"small");
    let out = work.repot(&["create", "manifest", "-o", "x", "--align", "100"]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
}

#[test]
fn a_mistake_names_its_line_and_leaves_no_file() {
    let work = Work::new();
    let before = work.files();
    for (line, expected) in [
        ("dir /x 9 0 0", "mode 9 is not an octal number"),
        ("dir /x 17777 0 0", "mode 17777 has more than permissions"),
        ("dir /x 755 root 0", "user ID root is not a number"),
        ("file /x missing 644 0 0", "cannot open missing: No such file or directory (os error 2)"),
        ("file /x root 644 0 0", "root is a directory"),
        ("nod /x 600 0 0 q 1 2", "unknown type of device q: b or c"),
        ("nod /x 600 0 0 c 1", "too few words: nod NAME MODE UID GID TYPE MAJOR MINOR"),
        ("link /x y 777 0 0", "unknown type link: file, dir, nod, slink, pipe or sock"),
        ("#cpio: bzip3", "unknown compression bzip3: use zstd, xz, gzip, lz4, lzma, bzip2, lzop or none"),
        ("#cpio: zstd -99", "zstd has levels 1 to 22, not 99"),
        ("#cpio: brotli", "unknown compression brotli: use zstd, xz, gzip, lz4, lzma, bzip2, lzop or none"),
        (
            "dir TRAILER!!! 755 0 0",
            "newc cannot hold the name that marks the end of an archive: \"TRAILER!!!\"",
        ),
    ] {
        let (done, error) = create(&work, &format!("dir /d 755 0 0\n{line}\n"), &[]);
        assert!(!done, "{line}");
        assert_eq!(error, format!("repot: manifest:2: {expected}\n"));
    }
    for (manifest, expected) in [
        ("", "manifest: the manifest has no entries"),
        ("-\tx\n", "manifest:1: neither a type nor a location"),
        ("-\t-\tdir\n", "manifest:1: neither a location nor a name"),
        ("-\tx\tfile\t1\t2\t3\t4\t5\n", "manifest:1: a file without a location, and no size of 0"),
        (
            "root/bin/tool\tx\tfile\t1\t2\t3\t4\t70001\n",
            "manifest:1: root/bin/tool has 70000 bytes, fewer than 70001",
        ),
    ] {
        let (done, error) = create(&work, manifest, &[]);
        assert!(!done, "{manifest}");
        assert_eq!(error, format!("repot: {expected}\n"));
    }
    fs::remove_file(work.path("manifest")).unwrap();
    assert_eq!(work.files(), before);
}

#[test]
fn what_the_kernel_would_lose_is_a_warning() {
    let work = Work::new();
    let list = "file a/b /dev/null 644 0 0\ndir a 755 0 0\nslink s a 777 0 0\nfile s/c /dev/null 644 0 0\ndir d 755 0 0 # why\n";
    let (done, warnings) = create(&work, list, &[]);
    assert!(done);
    let expected = "repot: warning: line 5: ignored at its end: # why\nrepot: warning: line 1: \"a/b\" comes before \
                    its directory: the kernel loses it, unless an image in front has that\n";
    assert_eq!(warnings, expected);
}

/// Every compression that the kernel reads, undone by repot and by the program of that name if it is
/// installed.
#[test]
fn every_compression_of_the_kernel_is_written() {
    let work = Work::new();
    // Blocks of lzop have 256 KiB: one that compresses, one that does not, and a part of one.
    let mut state = 1u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    });
    let noise: Vec<u8> = noise.take(300_000).collect();
    fs::write(work.path("root/large"), [b"repot ".repeat(100_000), noise, vec![7; 99]].concat()).unwrap();
    let list = "dir /dev 0755 0 0\nfile /large root/large 0644 0 0\n";
    fs::write(work.path("manifest"), list).unwrap();
    work.done(&["create", "manifest", "-o", "plain"]);
    let plain = work.read("plain");
    for (name, ending, program) in [
        ("zstd", "zst", "zstd -dcq"),
        ("gzip", "gz", "gzip -dc"),
        ("xz", "xz", "xz -dcq"),
        ("lz4", "lz4", "lz4 -dcq"),
        ("lzma", "lzma", "xz -dcq --format=lzma"),
        ("bzip2", "bz2", "bzip2 -dcq"),
        ("lzop", "lzo", "lzop -dcq"),
    ] {
        let segments = format!("#cpio: {name}\n{list}#cpio: {name} -1\ndir /more 0755 0 0\n");
        assert!(create(&work, &segments, &[]).0, "{name}");
        assert_eq!(work.done(&["ls", "image"]), "dev\nlarge\nmore\n", "{name}");
        work.done(&["extract", "image", "-C", name]);
        assert!(work.read(format!("{name}/large")) == work.read("root/large"), "{name}");
        fs::write(work.path("manifest"), list).unwrap();
        work.done(&["create", "manifest", "-c", name, "-o", "one"]);
        work.done(&["create", "manifest", "-o", &format!("one.{ending}")]);
        assert!(work.read("one") == work.read(format!("one.{ending}")), "{name}");
        let installed = program.split(' ').next().unwrap();
        if Command::new(installed).arg("--version").output().is_ok() {
            // Zeros behind a stream are for the kernel; some programs complain about them, and write all the
            // same.
            let out = Command::new("sh")
                .args(["-c", &format!("{program} < {}", work.path("one").display())])
                .output();
            assert!(out.unwrap().stdout.starts_with(&plain[..plain.len() - 512]), "{name}");
        }
    }
}
