//! An OCI image layout with one image for each architecture: `FROM scratch`, and `/init` in it.
//!
//! Source: the OCI image specification, image-layout.md and image-index.md.

use super::archive::{self, Files};
use super::{date, read_file};
use anyhow::Result;
use repot_harness::build::Arch;
use repot_harness::place;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The layout as a tar archive.
pub(super) fn layout(arches: &[Arch], version: &str, time: u64) -> Result<Vec<u8>> {
    let mut images = Vec::new();
    for &arch in arches {
        images.push((arch, read_file(&place::kept("dist")?.join(arch.name()).join("init"))?));
    }
    archive::tar(&files(&images, version, time)?, "", time)
}

fn files(images: &[(Arch, Vec<u8>)], version: &str, time: u64) -> Result<Files> {
    let mut files = Files::default();
    let mut manifests = Vec::new();
    for (arch, init) in images {
        let mut root = Files::default();
        root.program("init", init.clone());
        let tar = archive::tar(&root, "", time)?;
        let layer = blob(&mut files, LAYER, archive::gzip(&tar)?);
        let platform = platform(*arch);
        let mut config = json!({
            "created": date::rfc3339(time),
            "config": { "Entrypoint": ["/init"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", archive::sha256(&tar))] },
            "history": [{ "created": date::rfc3339(time), "created_by": "cargo xtask release" }],
        });
        for (key, value) in platform.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let config = blob(&mut files, CONFIG, serde_json::to_vec(&config)?);
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        let mut manifest = blob(&mut files, MANIFEST, serde_json::to_vec(&manifest)?);
        manifest["platform"] = platform;
        manifests.push(manifest);
    }
    // One image with all platforms, under the name of the version.
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    let mut index = blob(&mut files, INDEX, serde_json::to_vec(&index)?);
    index["annotations"] = json!({ "org.opencontainers.image.ref.name": version });
    let top = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [index] });
    files.file("index.json", serde_json::to_vec(&top)?);
    files.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    Ok(files)
}

/// Adds a blob and returns its descriptor.
fn blob(files: &mut Files, kind: &str, bytes: Vec<u8>) -> Value {
    let digest = archive::sha256(&bytes);
    let descriptor = json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() });
    files.file(&format!("blobs/sha256/{digest}"), bytes);
    descriptor
}

/// Go's names.
fn platform(arch: Arch) -> Value {
    let name = match arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
        Arch::I686 => "386",
        Arch::Armv7 => return json!({ "os": "linux", "architecture": "arm", "variant": "v7" }),
        Arch::Riscv64 => "riscv64",
        Arch::Ppc64le => "ppc64le",
        Arch::S390x => "s390x",
        Arch::Loongarch64 => "loong64",
    };
    json!({ "os": "linux", "architecture": name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use repot_harness::command::read;
    use std::process::Command;

    /// skopeo and umoci read the layout, choose the image of an architecture, and unpack its init.
    #[test]
    fn other_tools_read_the_layout() {
        repot_harness::debian::need(&[("skopeo", "skopeo"), ("umoci", "umoci"), ("tar", "tar")]).unwrap();
        let images = [(Arch::X86_64, b"one".to_vec()), (Arch::S390x, b"two".to_vec())];
        let folder = place::fresh("oci-test").unwrap();
        let tar = archive::tar(&files(&images, "1.0.0", 86_400).unwrap(), "", 86_400).unwrap();
        std::fs::write(folder.join("image.tar"), tar).unwrap();
        let layout = folder.join("layout");
        std::fs::create_dir(&layout).unwrap();
        let run = |program: &str, words: &[&str]| {
            read(Command::new(program).current_dir(&folder).args(words))
                .unwrap_or_else(|why| panic!("{why:#}"))
        };
        run("tar", &["-xf", "image.tar", "-C", "layout"]);
        for (name, init) in [("amd64", "one"), ("s390x", "two")] {
            let shown = run("skopeo", &["--override-arch", name, "inspect", "oci:layout:1.0.0"]);
            assert!(shown.contains(&format!("\"Architecture\": \"{name}\"")), "{shown}");
            let copy = format!("oci:{name}:only");
            run(
                "skopeo",
                &["--override-arch", name, "copy", "--quiet", "oci-archive:image.tar:1.0.0", &copy],
            );
            let words = ["unpack", "--rootless", "--image", &format!("{name}:only"), &format!("{name}-out")];
            run("umoci", &words);
            let path = folder.join(format!("{name}-out/rootfs/init"));
            assert_eq!(std::fs::read_to_string(path).unwrap(), init);
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
