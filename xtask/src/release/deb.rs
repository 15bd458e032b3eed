//! Debian packages: `repot` has the tool, `repot-init` the inits and the runner.
//!
//! They are written here, and not by cargo-deb: they hold programs that were built already, also for another
//! architecture, and a package is three members of an ar archive (deb(5)).

use super::archive::{self, Files};
use super::{Release, date};
use anyhow::{Context, Result};

/// A built package and its name.
pub(super) struct Package {
    pub(super) file: String,
    pub(super) bytes: Vec<u8>,
}

/// What differs between the two.
struct Kind {
    name: &'static str,
    summary: &'static str,
    /// The lines of the description.
    description: &'static str,
    /// More lines of the control file.
    fields: &'static str,
    /// What lintian is told, and why.
    overrides: &'static str,
}

const TOOL: Kind = Kind {
    name: "repot",
    summary: "pack, inspect and boot initramfs images that re-home themselves",
    description: " The whole system of such an image stays in memory. Its /init moves the root\n \
                  onto a tmpfs, so that pivot_root works, memory is limited, and the tree can\n \
                  be paged out.\n .\n The tool has the inits of all architectures inside.\n",
    fields: "Multi-Arch: foreign\nSuggests: qemu-system, repot-init\n",
    overrides: "# It is released as one file for every distribution, built from a lock file.\n\
                repot: statically-linked-binary\nrepot: embedded-library\n",
};

const INITS: Kind = Kind {
    name: "repot-init",
    summary: "static /init that moves an initramfs root onto a tmpfs",
    description: " These are the programs that image builders put into an initramfs: the init,\n \
                  the init that also unpacks payloads, and the runner of images that hold one\n \
                  program. Nothing on this system is changed.\n",
    fields: "",
    overrides: "# It is the first program of a system, where no library may exist.\n\
                repot-init: statically-linked-binary\nrepot-init: embedded-library\n",
};

const MAINTAINER: &str = env!("CARGO_PKG_AUTHORS");

/// The package of the tool, from the files of its archive.
pub(super) fn tool(files: &Files, licenses: &Files, arch: &str, release: &Release) -> Result<Package> {
    let mut root = Files::default();
    root.program("usr/bin/repot", files.get("repot").context("the tool")?.to_vec());
    for (from, to) in [
        ("repot.bash", "bash-completion/completions/repot"),
        ("repot.fish", "fish/vendor_completions.d/repot.fish"),
        ("_repot", "zsh/vendor-completions/_repot"),
    ] {
        let text = files.get(&format!("completions/{from}")).with_context(|| from.to_owned())?;
        root.file(&format!("usr/share/{to}"), text.to_vec());
    }
    TOOL.package(root, files, licenses, arch, release)
}

/// The package of the inits.
pub(super) fn inits(files: &Files, licenses: &Files, arch: &str, release: &Release) -> Result<Package> {
    let mut root = Files::default();
    for name in ["init", "init-payload", "run"] {
        root.program(&format!("usr/lib/repot/{name}"), files.get(name).context("a program")?.to_vec());
    }
    INITS.package(root, files, licenses, arch, release)
}

impl Kind {
    /// Adds what every package has, and the control files.
    fn package(
        &self,
        mut root: Files,
        files: &Files,
        licenses: &Files,
        arch: &str,
        release: &Release,
    ) -> Result<Package> {
        let (name, time, version) = (self.name, release.time, format!("{}-1", release.version));
        for (path, bytes) in files.iter() {
            if let Some(page) = path.strip_prefix("man/") {
                let section = page.rsplit('.').next().unwrap_or_default();
                root.file(&format!("usr/share/man/man{section}/{page}.gz"), archive::gzip(bytes)?);
            }
        }
        let doc = |file: &str| format!("usr/share/doc/{name}/{file}");
        let changes = format!(
            "{name} ({version}) unstable; urgency=medium\n\n  * Release {}.\n\n -- {MAINTAINER}  {}\n",
            release.version,
            date::rfc5322(time)
        );
        root.file(&doc("changelog.Debian.gz"), archive::gzip(changes.as_bytes())?);
        root.file(&doc("changelog.gz"), archive::gzip(files.get("CHANGELOG.md").context("CHANGELOG.md")?)?);
        root.file(&doc("copyright"), copyright(licenses)?);
        root.file(&doc("third-party-licenses.gz"), archive::gzip(&texts(licenses))?);
        root.file(&format!("usr/share/lintian/overrides/{name}"), self.overrides.as_bytes().to_vec());

        let size: usize = root.iter().map(|(_, bytes)| bytes.len().div_ceil(1024)).sum();
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: {MAINTAINER}\n\
             Installed-Size: {size}\nSection: utils\nPriority: optional\n{}Homepage: {}\nDescription: {}\n{}",
            self.fields,
            env!("CARGO_PKG_REPOSITORY"),
            self.summary,
            self.description
        );
        let mut controls = Files::default();
        controls.file("control", control.into_bytes());
        let members = [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar.gz", archive::tar_gz(&controls, ".", time)?),
            ("data.tar.gz", archive::tar_gz(&root, ".", time)?),
        ];
        Ok(Package { file: format!("{name}_{version}_{arch}.deb"), bytes: archive::ar(&members, time) })
    }
}

/// The license of the package itself, and the list of what is linked.
fn copyright(licenses: &Files) -> Result<Vec<u8>> {
    let text = |name: &str| -> Result<String> {
        let bytes = licenses.get(name).with_context(|| name.to_owned())?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    };
    Ok(format!(
        "{}\nOr, at your option, the Apache License 2.0: /usr/share/common-licenses/Apache-2.0\n\n{}\n\
         The texts of these licenses are in third-party-licenses.gz.\n",
        text("LICENSE-MIT")?,
        text("summary")?
    )
    .into_bytes())
}

/// All texts, each below its name.
fn texts(licenses: &Files) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, bytes) in licenses.iter().filter(|(name, _)| name.contains('/')) {
        all.extend_from_slice(format!("==== {name} ====\n\n").as_bytes());
        all.extend_from_slice(bytes);
        all.extend_from_slice(b"\n\n");
    }
    all
}
