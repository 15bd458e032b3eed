//! Images inside of programs: unified kernel images, which `pack --uki` writes, and kernels with a built-in
//! initramfs.

mod support;

use std::fs;
use std::io::Write;

use support::{Work, member, text, trailer};

/// A program for UEFI as systemd's stub: two sections, of which the second is at an address that is no
/// multiple of the alignment, and room for `room` section headers.
fn stub(room: usize) -> Vec<u8> {
    let mut head = vec![0; 0x40];
    head[..2].copy_from_slice(b"MZ");
    head[0x3c] = 0x40;
    head.extend(b"PE\0\0");
    for half in [0x8664u16, 2, 0, 0, 0, 0, 0, 0, 240, 0x206] {
        head.extend(half.to_le_bytes());
    }
    let mut optional = vec![0u8; 240];
    let mut put = |at: usize, number: u32| optional[at..at + 4].copy_from_slice(&number.to_le_bytes());
    put(0, 0x20b);
    put(16, 0x1000);
    put(32, 0x200);
    put(36, 0x200);
    put(56, 0x2200);
    put(60, 0x400);
    put(64, 0x1234_5678);
    put(68, 10);
    put(108, 16);
    head.extend(optional);
    let first = (head.len() + 40 * room).next_multiple_of(0x200);
    let first = u32::try_from(first).unwrap();
    for (name, size, address, start) in
        [(".text", 0x1f0u32, 0x1000u32, first), (".sdmagic", 0x34, 0x2100, first + 0x200)]
    {
        let mut section = [0; 40];
        section[..name.len()].copy_from_slice(name.as_bytes());
        for (at, number) in [(8, size), (12, address), (16, 0x200), (20, start), (36, 0x4000_0040)] {
            section[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        head.extend(section);
    }
    head.resize(first as usize, 0);
    head.extend([b't'; 0x200]);
    head.extend([b'#'; 0x200]);
    head
}

/// The sections that objdump lists: names, sizes and addresses.
fn sections(work: &Work, file: &str) -> Vec<(String, u64, u64)> {
    let list = text(&work.run("objdump", &["-h", file]));
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let lines = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let lines = lines.filter(|words| words.len() == 7 && words[1].starts_with('.'));
    lines.map(|words| (words[1].to_string(), number(words[2]), number(words[3]))).collect()
}

fn work() -> Work {
    let work = Work::new();
    fs::create_dir_all(work.path("root/etc")).unwrap();
    fs::create_dir_all(work.path("root/sbin")).unwrap();
    fs::write(work.path("root/etc/os-release"), "ID=test\n").unwrap();
    fs::copy(work.path("init"), work.path("root/sbin/init")).unwrap();
    work.run("chmod", &["755", "root/sbin/init"]);
    fs::write(work.path("stub"), stub(12)).unwrap();
    let mut kernel = vec![0; 0x4000];
    kernel[..2].copy_from_slice(b"MZ");
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x236] = 1;
    kernel[0x20e..0x210].copy_from_slice(&0x3000u16.to_le_bytes());
    kernel[0x3200..0x3210].copy_from_slice(b"6.1.2-test (x) #");
    fs::write(work.path("kernel"), kernel).unwrap();
    work
}

const PACK: [&str; 8] = ["pack", "root", "-o", "image.efi", "--uki", "--kernel", "kernel", "--stub"];

#[test]
fn a_unified_kernel_image_is_the_stub_with_the_parts_behind_it() {
    let work = work();
    work.done(&[&PACK[..], &["stub", "--cmdline", "console=ttyS0 quiet"]].concat());
    let found = sections(&work, "image.efi");
    let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, [".text", ".sdmagic", ".osrel", ".cmdline", ".uname", ".initrd", ".linux"]);
    assert_eq!((found[0].1, found[0].2, found[1].2), (0x1f0, 0x1000, 0x2100));
    assert_eq!((found[2].1, found[3].1, found[4].1, found[6].1), (8, 19, 10, 0x4000));
    assert!(found.windows(2).all(|pair| pair[0].2 + pair[0].1 <= pair[1].2), "{found:?}");
    assert!(found[2..].iter().all(|(.., address)| address % 4096 == 0), "{found:?}");
    // objcopy takes out what went in.
    for (section, expected) in
        [(".cmdline", b"console=ttyS0 quiet".to_vec()), (".linux", work.read("kernel"))]
    {
        work.run("objcopy", &["-O", "binary", "--only-section", section, "image.efi", "part"]);
        let part = work.read("part");
        assert!(
            part.starts_with(&expected) && part[expected.len()..].iter().all(|byte| *byte == 0),
            "{section}"
        );
    }
    work.done(&["pack", "root", "-o", "plain"]);
    assert_eq!(work.done(&["ls", "-l", "image.efi"]), work.done(&["ls", "-l", "plain"]));
    assert_eq!(work.done(&["diff", "image.efi", "plain"]), "no differences\n");
    assert_eq!(work.done(&["cat", "image.efi", "etc/os-release"]), "ID=test\n");
    // The stub is there, byte by byte, but for its headers.
    let (image, stub) = (work.read("image.efi"), work.read("stub"));
    assert!(image[0x400..].starts_with(&stub[0x400..]));
    // SizeOfImage covers all sections, and the checksum is gone.
    let number = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
    let (_, size, address) = found.last().unwrap();
    assert_eq!((number(0x58 + 56), number(0x58 + 64)), (u32::try_from(size + address).unwrap(), 0));
    assert_eq!(image.len() % 0x200, 0);
}

#[test]
fn systemds_own_stub_is_one_too() {
    let work = work();
    // Only where it is installed: the test above has a stub of the same shape.
    let own = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
    if !std::path::Path::new(own).exists() {
        return;
    }
    work.done(&[&PACK[..7], &["--cmdline", "quiet"]].concat());
    let (before, after) = (sections(&work, own), sections(&work, "image.efi"));
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 5);
    assert!(work.done(&["ls", "image.efi"]).contains("etc/os-release"));
}

#[test]
fn append_adds_to_the_initramfs_of_a_unified_kernel_image() {
    let work = work();
    work.done(&[&PACK[..], &["stub", "--cmdline", "quiet"]].concat());
    work.done(&["append", "image.efi", "-o", "more.efi", "--config", "size=70%"]);
    assert_eq!(work.done(&["cat", "more.efi", "etc/repot.conf"]), "size=70%\n");
    let (before, after) = (sections(&work, "image.efi"), sections(&work, "more.efi"));
    let names = |list: &[(String, u64, u64)]| list.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    assert_eq!(before[..5], after[..5]);
    assert!(after[5].1 > before[5].1 && after[6].1 == before[6].1);
    // The same bytes as the image alone with the segment, up to the filling.
    work.done(&["pack", "root", "-o", "plain"]);
    work.done(&["append", "plain", "-o", "plain.more", "--config", "size=70%"]);
    assert_eq!(work.done(&["diff", "more.efi", "plain.more"]), "no differences\n");
    // A signature is void.
    let mut signed = work.read("image.efi");
    let directory = 0x58 + 112 + 4 * 8;
    signed[directory..directory + 8].copy_from_slice(&[0, 0, 0, 1, 8, 0, 0, 0]);
    fs::write(work.path("signed.efi"), signed).unwrap();
    let said = work.done(&["append", "signed.efi", "-o", "more.efi", "--config", "size=70%"]);
    assert!(said.contains("warning: the signatures of the unified kernel image are void"), "{said}");
    assert_eq!(work.read("more.efi")[directory..directory + 8], [0; 8]);
}

#[test]
fn mistakes_are_errors_and_leave_no_file() {
    let work = work();
    fs::write(work.path("narrow"), stub(3)).unwrap();
    fs::write(work.path("text"), "text").unwrap();
    let before = work.files();
    for (stub, kernel, expected) in [
        ("narrow", "kernel", "cannot add sections to narrow: its headers have no room for 6 sections"),
        ("text", "kernel", "text is not a program for UEFI: "),
        ("missing", "kernel", "cannot open systemd's stub missing "),
        ("stub", "text", "text has no EFI stub (CONFIG_EFI_STUB)"),
    ] {
        let error = work.fails(&["pack", "root", "-o", "x", "--uki", "--kernel", kernel, "--stub", stub]);
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(work.repot(&["pack", "root", "-o", "x", "--uki"]).status.code(), Some(2));
    assert_eq!(work.repot(&["pack", "root", "-o", "x", "--kernel", "kernel"]).status.code(), Some(2));
    assert_eq!(work.files(), before);
}

/// A kernel for x86 with this archive in it, compressed with gzip.
fn kernel_with(work: &Work, archive: &[u8]) -> Vec<u8> {
    let mut kernel = b"\x7fELF".to_vec();
    kernel.resize(5000, 0x90);
    kernel.extend(archive);
    kernel.resize(kernel.len().next_multiple_of(8), 0);
    kernel.extend((archive.len() as u64).to_le_bytes());
    kernel.extend([3; 999]);
    fs::write(work.path("vmlinux"), &kernel).unwrap();
    let payload = work.run("gzip", &["-c", "vmlinux"]);
    let mut image = work.read("kernel");
    // The setup has 0x30 sectors.
    image[0x1f1] = 0x30 - 1;
    image.resize(0x6000, 0);
    image[0x248..0x24c].copy_from_slice(&0u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    [image, payload].concat()
}

#[test]
fn a_unified_kernel_image_begins_with_what_its_kernel_has() {
    let work = work();
    let own = [
        member("etc", 0o040_755, 1, 2, ""),
        member("etc/os-release", 0o100_644, 2, 1, "ID=old"),
        member("own", 0o100_644, 3, 1, "in the kernel"),
        trailer(),
    ];
    let default = [
        member("dev", 0o040_755, 1, 2, ""),
        member("dev/console", 0o020_600, 2, 1, ""),
        member("root", 0o040_700, 3, 2, ""),
        trailer(),
    ];
    work.done(&["pack", "root", "-o", "plain"]);
    for (archive, has_own) in [(own.concat(), true), (default.concat(), false)] {
        let kernel = kernel_with(&work, &archive);
        fs::write(work.path("kernel"), kernel).unwrap();
        assert!(work.done(&["ls", "kernel"]).contains(if has_own { "own\n" } else { "dev/console\n" }));
        work.done(&[&PACK[..], &["stub", "--cmdline", "quiet"]].concat());
        // The image beside it overrides it.
        assert_eq!(work.done(&["cat", "image.efi", "etc/os-release"]), "ID=test\n");
        let names = work.done(&["ls", "image.efi"]);
        assert_eq!(names.lines().next() == Some("etc") && names.contains("\nown\n"), has_own, "{names}");
        if has_own {
            assert_eq!(work.done(&["cat", "image.efi", "own"]), "in the kernel");
            work.done(&["extract", "image.efi", "-C", "out"]);
            assert_eq!(work.read("out/own"), b"in the kernel");
            assert_eq!(work.read("out/etc/os-release"), b"ID=test\n");
            let different = text(&work.repot(&["diff", "plain", "image.efi"]).stdout);
            assert!(different.contains("+ own\n"), "{different}");
        } else {
            assert_eq!(work.done(&["diff", "image.efi", "plain"]), "no differences\n");
        }
        let kept = work.read("image.efi");
        work.done(&["append", "image.efi", "-o", "more.efi", "--config", "size=70%"]);
        assert_eq!(work.done(&["cat", "more.efi", "etc/repot.conf"]), "size=70%\n");
        assert_eq!(work.read("image.efi"), kept);
        // The section of the initramfs is the image alone.
        work.run("objcopy", &["-O", "binary", "--only-section", ".initrd", "more.efi", "part"]);
        assert!(!work.done(&["ls", "part"]).contains("own\n"));
    }
}

#[test]
fn a_kernel_has_its_own_initramfs() {
    let work = Work::new();
    let archive =
        [member("dev", 0o040_755, 1, 2, ""), member("hello", 0o100_644, 2, 1, "hello world"), trailer()]
            .concat();
    for (compressor, inner) in
        [("gzip -9", "cat"), ("zstd -q", "zstd -q"), ("xz --check=crc32", "gzip"), ("lz4 -l -q", "cat")]
    {
        fs::write(work.path("archive"), &archive).unwrap();
        let built_in = work.run("sh", &["-c", &format!("{inner} < archive")]);
        // The kernel's own code has the magic too.
        let mut kernel = b"\x7fELF070701\x00070702\0\0\0\0".to_vec();
        kernel.resize(5000, 0x90);
        kernel.extend(&built_in);
        kernel.resize(kernel.len().next_multiple_of(8), 0);
        kernel.extend((built_in.len() as u64).to_le_bytes());
        kernel.extend([3; 999]);
        fs::write(work.path("vmlinux"), &kernel).unwrap();
        let mut payload = work.run("sh", &["-c", &format!("{compressor} < vmlinux")]);
        if !compressor.starts_with("gzip") {
            payload.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
        }
        let mut image = vec![0; 0x400];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend([0xcc; 16]);
        image.extend(&payload);
        image.extend([0xee; 333]);
        fs::write(work.path("vmlinuz"), &image).unwrap();
        for file in ["vmlinux", "vmlinuz"] {
            assert_eq!(work.done(&["ls", file]), "dev\nhello\n", "{compressor} {inner} {file}");
            assert_eq!(work.done(&["cat", file, "hello"]), "hello world");
        }
        let error = work.fails(&["append", "vmlinuz", "-o", "x"]);
        assert!(
            error.contains("vmlinuz is a kernel with a built-in initramfs: append to the initramfs"),
            "{error}"
        );
        image.truncate(0x450);
        fs::write(work.path("short"), &image).unwrap();
        let error = work.fails(&["ls", "short"]);
        assert!(error.contains("short: cannot unpack the kernel: truncated: "), "{error}");
    }
    // A kernel without one is named.
    let mut image = vec![0; 0x800];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    let mut file = fs::File::create(work.path("none")).unwrap();
    file.write_all(&image).unwrap();
    let error = work.fails(&["ls", "none"]);
    assert!(error.contains("none: "), "{error}");
}
