//! Runs the command in a temporary directory.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

pub(crate) struct Work {
    pub(crate) dir: TempDir,
}

impl Work {
    /// A directory with a small root and an init to pack.
    pub(crate) fn new() -> Work {
        let dir = tempfile::tempdir().unwrap();
        let work = Work { dir };
        fs::create_dir_all(work.path("root/bin")).unwrap();
        fs::create_dir_all(work.path("root/dev")).unwrap();
        fs::write(work.path("root/bin/tool"), vec![b'x'; 70_000]).unwrap();
        fs::hard_link(work.path("root/bin/tool"), work.path("root/bin/alias")).unwrap();
        std::os::unix::fs::symlink("tool", work.path("root/bin/link")).unwrap();
        // The shortest static program: an ELF header without program headers.
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        (elf[18], elf[20]) = (62, 1);
        elf.extend(b"/etc/repot.conf\nrepot-features: chain manifests;\n");
        fs::write(work.path("init"), elf).unwrap();
        work
    }

    /// Adds `init-payload`, an init that claims to unpack payloads.
    pub(crate) fn init_with_payload(&self) {
        let mut elf = self.read("init");
        elf.extend(b"\nrepot-features: chain manifests payload;\n");
        fs::write(self.path("init-payload"), elf).unwrap();
    }

    /// Writes the folder of a kernel as depmod does. The modules name the release that they are for.
    pub(crate) fn kernel_modules(&self, release: &str, made_for: &str) {
        let folder = self.path(&format!("kernels/{release}"));
        fs::create_dir_all(folder.join("kernel")).unwrap();
        let module = |name: &str| format!("\x7fELF{name}\0vermagic={made_for} SMP mod_unload \0");
        for name in ["zram", "zsmalloc", "lz4-compress", "zstd"] {
            fs::write(folder.join(format!("kernel/{name}.ko")), module(name)).unwrap();
        }
        self.run("xz", &[&format!("kernels/{release}/kernel/zsmalloc.ko")]);
        let dep = "kernel/zram.ko: kernel/lz4-compress.ko kernel/zsmalloc.ko.xz\nkernel/zsmalloc.ko.xz:\n\
                   kernel/lz4-compress.ko: kernel/zsmalloc.ko.xz\nkernel/zstd.ko:\n";
        fs::write(folder.join("modules.dep"), dep).unwrap();
        fs::write(folder.join("modules.builtin"), "kernel/lib/other.ko\n").unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn repot(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_repot"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("REPOT_INIT", self.path("init"))
            .env("REPOT_RUN", self.path("init"));
        command.env_remove("SOURCE_DATE_EPOCH").output().unwrap()
    }

    /// Runs the command, which must succeed, and returns its output.
    #[track_caller]
    pub(crate) fn done(&self, args: &[&str]) -> String {
        let out = self.repot(args);
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        text(&out.stdout) + &text(&out.stderr)
    }

    /// Runs the command, which must exit with 1 and print one error, and returns that.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let out = self.repot(args);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {error}");
        let errors: Vec<_> = error.lines().filter(|line| !line.contains(": warning: ")).collect();
        assert_eq!(errors.len(), 1, "{error}");
        errors[0].to_string()
    }

    /// The JSON of `inspect`.
    #[track_caller]
    pub(crate) fn inspect(&self, image: &str) -> serde_json::Value {
        serde_json::from_str(&self.done(&["inspect", "--json", image])).unwrap()
    }

    /// Runs another program, which must succeed.
    #[track_caller]
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Vec<u8> {
        let out = Command::new(program).args(args).current_dir(self.dir.path()).output();
        let out = out.unwrap_or_else(|error| {
            panic!("{program}: {error} (Debian: apt install acl attr busybox cpio libarchive-tools lz4 mandoc xz-utils zstd)")
        });
        assert!(out.status.success(), "{program} {args:?}: {}", text(&out.stderr));
        out.stdout
    }

    /// The files in the directory.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        fs::read(self.dir.path().join(name)).unwrap()
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A member of a newc archive: name, mode, inode, number of links, data.
pub(crate) fn member(name: &str, mode: u32, ino: u32, nlink: u32, data: &str) -> Vec<u8> {
    let (size, namesize) = (u32::try_from(data.len()).unwrap(), u32::try_from(name.len() + 1).unwrap());
    let fields = [ino, mode, 0, 0, nlink, 0, size, 0, 0, 0, 0, namesize, 0];
    let mut bytes = b"070701".to_vec();
    bytes.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    bytes.extend([name.as_bytes(), b"\0"].concat());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(data.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The end of a newc archive.
pub(crate) fn trailer() -> Vec<u8> {
    member("TRAILER!!!", 0, 0, 1, "")
}

/// A tar archive of members with arbitrary names.
pub(crate) fn tar(members: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, data) in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        header.set_entry_type(*kind);
        let linked = matches!(kind, tar::EntryType::Link | tar::EntryType::Symlink);
        if linked {
            header.as_old_mut().linkname[..data.len()].copy_from_slice(data.as_bytes());
        }
        header.set_size(if linked { 0 } else { data.len() as u64 });
        header.set_cksum();
        bytes.extend(header.as_bytes());
        if !linked {
            bytes.extend(data.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}
