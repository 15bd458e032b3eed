use super::cmdline::parse;
use super::*;

fn read(file: &str, line: &str) -> Options {
    Options::read(Some(file.as_bytes()), &parse(line.as_bytes()))
}

#[test]
fn the_command_line_overrides_the_file() {
    let options = read("# ours\nmode = move\nsize=1g\n", "repot.mode=bind repot.nr-inodes=4k repot.noswap");
    assert_eq!(options.mode, Mode::Bind);
    assert_eq!(options.size, Some(Amount::Exactly(1 << 30)));
    assert_eq!(options.nr_inodes, Some(Amount::Exactly(4096)));
    assert_eq!(options.tmpfs, [("noswap".to_string(), None)]);
    assert_eq!(options.warnings, [""; 0]);
}

#[test]
fn mounts_are_known_names() {
    assert_eq!(read("mount=proc,,devtmpfs\n", "").mount, ["proc", "devtmpfs"]);
    // The last list counts, as with every key.
    assert_eq!(read("mount=proc", "repot.mount=tmp").mount, ["tmp"]);
    assert!(read("mount=proc", "repot.mount=").mount.is_empty());
    let options = read("mount=proc,nfs\n", "");
    assert!(options.mount.is_empty());
    assert!(options.warnings[0].contains("invalid value \"proc,nfs\" for mount"), "{:?}", options.warnings);
}

#[test]
fn the_file_can_disable_the_command_line() {
    let line = "repot.mode=stay init=/b transparent-hugepage-tmpfs=advise";
    let options = read("cmdline=ignore\ninit=/a\n", line);
    assert_eq!((options.mode, options.init.as_deref()), (Mode::Auto, Some(&b"/a"[..])));
    // This is a setting of the kernel, not of the user, so `cmdline=ignore` does not hide it.
    assert!(options.huge_by_default && !read("", "").huge_by_default);
}

#[test]
fn payload_digests_add_up() {
    let (a, b) = ("a".repeat(64), "b".repeat(64));
    let options = read(&format!("payload=sha256:{a}\n"), &format!("repot.payload=sha256:{b}"));
    assert_eq!(options.payload, [Some([0xaa; 32]), Some([0xbb; 32])]);
    // Whatever a file says.
    for ignore in ["cmdline=ignore", "cmdline=ignore\ncmdline=", "cmdline=ignore\npayload.overlay=yes"] {
        let options =
            read(&format!("{ignore}\npayload=sha256:{a}"), &format!("repot.payload=sha256:{b} mode=stay"));
        assert_eq!(
            (options.payload, options.mode),
            (alloc::vec![Some([0xaa; 32]), Some([0xbb; 32])], Mode::Auto)
        );
        assert!(!options.payload_overlay && options.uncovered.is_empty());
    }
    // A malformed digest is not ignored.
    let options = read("payload=md5:0\n", "repot.payload");
    assert_eq!((options.payload, options.warnings.len()), (alloc::vec![None, None], 2));
}

/// Only the source that sets the digest can allow what the digest does not cover.
#[test]
fn a_source_cannot_weaken_the_digest_of_another() {
    let digest = format!("payload=sha256:{}", "a".repeat(64));
    let (both, ours) = (format!("{digest}\npayload.overlay=yes"), format!("repot.{digest}"));
    let overlay = "repot.payload.overlay=yes";
    for (file, line, allowed) in [
        (digest.as_str(), "", false),
        (&both, "", true),
        (&digest, overlay, false),
        ("payload.overlay=yes", &ours, false),
        (&both, &ours, false),
        ("", &format!("{ours} {overlay}"), true),
        (&digest, &format!("{ours} {overlay}"), false),
        (&both, &format!("{ours} {overlay}"), true),
    ] {
        let options = read(file, line);
        let warned =
            options.warnings.iter().any(|warning| warning.starts_with("payload.overlay=yes ignored"));
        assert_eq!(options.payload_overlay, allowed, "{file} | {line}");
        assert_eq!(warned, !allowed && format!("{file}{line}").contains("overlay"), "{file} | {line}");
    }
}

/// A file beside the payload decides neither which init runs nor which part of the command line counts.
#[test]
fn what_a_digest_on_the_command_line_does_not_cover() {
    let ours = format!("repot.payload=sha256:{}", "a".repeat(64));
    let uncovered = |file: &str, more: &str| read(file, &format!("{ours} {more}")).uncovered;
    assert!(uncovered("init=/bin/sh", "")[0].starts_with("init="));
    assert!(uncovered("cmdline=ignore", "init=/b")[0].starts_with("cmdline=ignore"));
    assert_eq!(uncovered("cmdline=ignore\ninit=/a", "repot.mode=move").len(), 2);
    assert!(uncovered("init=/a\nsize=1g", "init=/b quiet").is_empty());
    assert_eq!(read("init=/a", &format!("{ours} init=/b")).init.as_deref(), Some(&b"/b"[..]));
    assert!(uncovered("init=/a", "repot.payload.overlay").is_empty());
    assert!(read(&ours.replace("repot.", "init=/a\n"), "init=/b").uncovered.is_empty());
}

#[test]
fn zram_takes_a_word_or_an_amount() {
    let options = read("zram=auto\n", "repot.zram=50% repot.zram.algorithm=lzo-rle repot.zram.limit=64m");
    assert_eq!(options.zram, Zram::Size(Amount::Percent(50)));
    assert_eq!(options.zram_algorithm.as_deref(), Some("lzo-rle"));
    assert_eq!((options.zram_limit, options.warnings.len()), (Some(Amount::Exactly(64 << 20)), 0));
    let options = read("zram=0\nzram=yes\nzram.algorithm=a/b\nzram.limit=0", "repot.zram");
    assert_eq!((options.zram, options.warnings.len()), (Zram::No, 5), "{:?}", options.warnings);
}

#[test]
fn repot_init_precedes_the_kernels_init() {
    assert_eq!(read("init=/f", "init=/k").init.as_deref(), Some(&b"/k"[..]));
    assert_eq!(read("", "repot.init=/r init=/k").init.as_deref(), Some(&b"/r"[..]));
}

#[test]
fn the_options_of_the_initial_root_are_kept() {
    let line = "initramfs_options=size=90%,nr_inodes=0,mpol=bind:0,2,huge=always,mode=0700,odd";
    let options = read("huge=never", line);
    let initial = (options.initial_size, options.initial_nr_inodes);
    assert_eq!(initial, (Some(Amount::Percent(90)), Some(Amount::Exactly(0))));
    assert_eq!((options.size, options.nr_inodes), (None, None));
    let text = |text: &str| text.to_string();
    let expected = [(text("huge"), Some(text("never"))), (text("mpol"), Some(text("bind:0,2")))];
    assert_eq!(options.tmpfs, expected);
    assert_eq!((options.owner, options.warnings), (Owner::default(), alloc::vec![]));
    assert_eq!(read("size=10%", line).size, Some(Amount::Percent(10)));
    assert_eq!(read("", &format!("{line} repot.size=1g")).size, Some(Amount::Exactly(1 << 30)));
    assert_eq!(read("cmdline=ignore", line), read("cmdline=ignore", ""));
}

#[test]
fn a_number_is_the_mode_of_the_root_directory() {
    let options = read("mode=bind\nmode=0750\nuid=5\ncontext=system_u:object_r:tmpfs_t:s0:c1,c2", "");
    assert_eq!((options.mode, options.owner.mode, options.owner.uid), (Mode::Bind, Some(0o750), Some(5)));
    assert_eq!(options.tmpfs[0].1.as_deref(), Some("system_u:object_r:tmpfs_t:s0:c1,c2"));
    assert_eq!(read("mode=0788\nmode=17777\nuid=root", "").warnings.len(), 3);
}

#[test]
fn only_repot_init_replaces_the_chain() {
    let chain = |line| read("chain=/init.real\n", line).chain;
    assert_eq!(chain("init=/nix/store/x/init").as_deref(), Some(&b"/init.real"[..]));
    assert_eq!(chain("repot.init=/bin/sh"), None);
    assert_eq!(read("chain=init", "").warnings.len(), 1);
}

#[test]
fn unknown_keys_and_bad_values_are_warned_about() {
    let options = read("colour=red\nsize=lots\n", "repot.mode=fly repot.threads=0 repot.size=50%");
    assert_eq!(options.mode, Mode::Auto);
    assert_eq!(options.size, Some(Amount::Percent(50)));
    assert_eq!(options.warnings.len(), 4, "{:?}", options.warnings);
    assert!(options.warnings[0].contains("/etc/repot.conf:1: unknown key \"colour\""));
    assert!(options.warnings[2].contains("invalid value \"fly\" for mode"));
}
