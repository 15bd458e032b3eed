//! The attribute manifests of several segments, on the new tree.
use repot_tests::rehome::{Rehomed, run};
use repot_tests::sandbox::Setup;
use repot_tests::stage::prepare;
use repot_tests::trees::Fs;

/// What `bin/ping`, `bin/other` and `bin/new` have of the attribute `trusted.x`.
fn found(moved: &Rehomed) -> [Option<String>; 3] {
    ["bin/ping", "bin/other", "bin/new"].map(|path| {
        let xattrs = &moved.after[path.as_bytes()].xattrs;
        let value = xattrs.iter().find(|(name, _)| name.as_slice() == b"trusted.x");
        value.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    })
}

/// Two packed images, one behind the other. The second has replaced `bin/new`, which has another size now.
#[test]
fn they_add_up_and_a_replaced_file_gets_nothing() {
    for fs in Fs::ALL {
        let prepared = prepare(fs, |stage| {
            stage.install("mode=move\n");
            for (path, content) in [("bin/ping", "ping"), ("bin/other", "other"), ("bin/new", "replaced")] {
                stage.file(path, content.as_bytes());
            }
            // No time in the name: what the kernel made of the times is unknown.
            let entry = |path: &str, size: usize, value: &str| {
                format!("# file: {path}\ntrusted.repot.stamp=\"100000 {size} 7\"\ntrusted.x=\"{value}\"\n\n")
            };
            let first = entry("bin/ping", 4, "first") + &entry("bin/new", 3, "first");
            stage.file(".repot-xattrs-00000001-x", first.as_bytes());
            stage.file(".repot-xattrs-00000002-x", entry("bin/other", 5, "second").as_bytes());
        });
        let moved = run(prepared, &Setup::default());
        assert_eq!(found(&moved), [Some("first".into()), Some("second".into()), None]);
        let log = moved.running.log();
        assert!(log.contains("extended attributes of 1 entries skipped: the entries were replaced"), "{log}");
        assert!(!log.contains("stamp"), "{log}");
    }
}

/// The name has the time of the manifest. If the manifest has it, the kernel has kept the times.
#[test]
fn times_count_if_the_kernel_keeps_them() {
    for (kept, expected) in [(true, None), (false, Some("first".to_owned()))] {
        let prepared = prepare(Fs::Ramfs, |stage| {
            stage.install("mode=move\n");
            for path in ["bin/ping", "bin/other", "bin/new"] {
                stage.file(path, b"file");
            }
            let entry = "# file: bin/new\ntrusted.repot.stamp=\"100000 4 7\"\ntrusted.x=\"first\"\n";
            let name = ".repot-xattrs-00000001-00000009";
            stage.file(name, entry.as_bytes());
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(if kept { 9 } else { 8 });
            let file = std::fs::File::options().write(true).open(stage.path(name)).expect("the manifest");
            file.set_modified(time).expect("its time");
        });
        let moved = run(prepared, &Setup::default());
        assert_eq!(found(&moved), [None, None, expected]);
    }
}
