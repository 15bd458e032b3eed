//! Container images as sources: handwritten layouts with the cases of the specification, and one made by
//! umoci and skopeo.

mod support;

use std::fs;
use std::process::Command;

use sha2::{Digest, Sha256};
use support::{Work, tar, text};
use tar::EntryType::{Directory, Link, Regular, Symlink};

/// An image layout with these layers.
fn layout(work: &Work, layers: &[Vec<u8>]) {
    fs::create_dir_all(work.path("oci/blobs/sha256")).unwrap();
    let blob = |bytes: &[u8]| {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(work.path("oci/blobs/sha256").join(&hex), bytes).unwrap();
        format!("sha256:{hex}")
    };
    let layers: Vec<_> =
        layers.iter().map(|layer| serde_json::json!({"digest": blob(layer), "size": 1})).collect();
    let manifest = blob(serde_json::json!({"schemaVersion": 2, "layers": layers}).to_string().as_bytes());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{"digest": manifest}]});
    fs::write(work.path("oci/index.json"), index.to_string()).unwrap();
    fs::write(work.path("oci/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// The names in the image except for those that repot adds.
fn names(work: &Work, image: &str) -> Vec<String> {
    let added = ["init", ".repot-begin", ".", ".repot-end", "dev", "dev/console", "dev/null", "dev/kmsg"];
    let listing = text(&work.run("sh", &["-c", &format!("zstd -dc {image} | cpio -t --quiet")]));
    listing.lines().filter(|name| !added.contains(name)).map(str::to_string).collect()
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_of_their_own_layer() {
    let work = Work::new();
    let below = tar(&[
        ("d/", Directory, ""),
        ("d/gone", Regular, "1"),
        ("d/kept", Regular, "1"),
        ("o/", Directory, ""),
        ("o/gone", Regular, "1"),
        ("o/deep/gone", Regular, "1"),
        ("t/under", Regular, "1"),
        ("f", Regular, "1"),
    ]);
    let above = tar(&[
        ("d/.wh.gone", Regular, ""),
        ("o/new", Regular, "2"),
        ("o/deep/new", Regular, "2"),
        // The specification allows a whiteout after the entries that it must not hide.
        ("o/.wh..wh..opq", Regular, ""),
        // A file replaces a directory, and a directory a file.
        ("t", Regular, "2"),
        ("f/", Directory, ""),
        ("f/in", Regular, "2"),
    ]);
    layout(&work, &[below, above]);
    work.done(&["pack", "oci", "-o", "image"]);
    assert_eq!(
        names(&work, "image"),
        ["d", "d/kept", "f", "f/in", "o", "o/deep", "o/deep/new", "o/new", "t"]
    );
}

#[test]
fn a_layer_follows_the_links_of_the_one_below() {
    let work = Work::new();
    let below = tar(&[("usr/lib/a", Regular, "1"), ("lib", Symlink, "usr/lib"), ("abs", Symlink, "/usr")]);
    let above = tar(&[("lib/b", Regular, "2"), ("abs/c", Regular, "2"), ("lib/d", Link, "lib/a")]);
    layout(&work, &[below, above]);
    work.done(&["pack", "oci", "-o", "image"]);
    assert_eq!(
        names(&work, "image"),
        ["abs", "lib", "usr", "usr/c", "usr/lib", "usr/lib/a", "usr/lib/b", "usr/lib/d"]
    );
}

#[test]
fn a_blob_that_is_not_what_it_says_is_refused() {
    let work = Work::new();
    let layer = tar(&[("a", Regular, "data")]);
    let hex: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    layout(&work, &[layer]);
    let path = work.path("oci/blobs/sha256").join(&hex);
    let mut bytes = fs::read(&path).unwrap();
    bytes[600] ^= 1;
    fs::write(path, bytes).unwrap();
    let error = work.fails(&["pack", "oci", "-o", "image"]);
    assert!(error.contains(&hex) && error.contains("corrupt: its sha256 is"), "{error}");
    assert!(!work.path("image").exists());
}

#[test]
fn a_digest_is_no_path() {
    let work = Work::new();
    layout(&work, &[]);
    let index = r#"{"manifests":[{"digest":"sha256:../../../etc/passwd"}]}"#;
    fs::write(work.path("oci/index.json"), index).unwrap();
    let error = work.fails(&["pack", "oci", "-o", "image"]);
    assert!(error.contains("is not a sha256 digest"), "{error}");
}

#[test]
fn the_archive_of_docker_save_is_read() {
    let work = Work::new();
    let manifest = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["1/layer.tar","2/layer.tar"]},
                       {"Config":"c.json","RepoTags":["b:1"],"Layers":["1/layer.tar"]}]"#;
    let (one, two) = (tar(&[("one", Regular, "")]), tar(&[("two", Regular, "")]));
    // The tar helper takes text, and these layers are ASCII.
    let (one, two) = (String::from_utf8(one).unwrap(), String::from_utf8(two).unwrap());
    let saved = [
        ("manifest.json", Regular, manifest),
        ("1/layer.tar", Regular, &one),
        ("2/layer.tar", Regular, &two),
    ];
    fs::write(work.path("saved.tar"), tar(&saved)).unwrap();
    let error = work.fails(&["pack", "saved.tar", "-o", "image"]);
    assert!(error.contains("several images match: a:1, b:1: choose one with --image"), "{error}");
    work.done(&["pack", "saved.tar", "-o", "image", "--image", "a:1"]);
    assert_eq!(names(&work, "image"), ["one", "two"]);
}

#[test]
fn a_layer_that_docker_save_wrote_as_a_link_is_found() {
    let work = Work::new();
    let manifest = r#"[{"Layers":["1/layer.tar","2/layer.tar","3/layer.tar"]}]"#;
    let one = String::from_utf8(tar(&[("one", Regular, "")])).unwrap();
    let saved = [
        ("manifest.json", Regular, manifest),
        ("1/layer.tar", Regular, &one),
        ("2/layer.tar", Symlink, "../1/layer.tar"),
        ("3/layer.tar", Symlink, "../2/layer.tar"),
    ];
    fs::write(work.path("saved.tar"), tar(&saved)).unwrap();
    work.done(&["pack", "saved.tar", "-o", "image"]);
    assert_eq!(names(&work, "image"), ["one"]);
    let lost =
        [("manifest.json", Regular, r#"[{"Layers":["a"]}]"#), ("a", Symlink, "../b"), ("b", Symlink, "a")];
    fs::write(work.path("saved.tar"), tar(&lost)).unwrap();
    let error = work.fails(&["pack", "saved.tar", "-o", "image"]);
    assert!(error.contains("saved.tar: no file a"), "{error}");
}

#[test]
fn what_layers_may_hold_is_counted_together() {
    let work = Work::new();
    let layer = tar(&[("one", Regular, "")]);
    layout(&work, &vec![layer.clone(); 1024]);
    work.done(&["pack", "oci", "-o", "image", "--compress", "none"]);
    layout(&work, &vec![layer; 1025]);
    let error = work.fails(&["pack", "oci", "-o", "image"]);
    assert!(error.contains("the image has 1025 layers, more than the limit of 1024"), "{error}");
}

/// Needs root, umoci and skopeo. Skipped otherwise.
#[test]
fn a_layout_by_umoci_and_its_copy_by_skopeo_make_the_image_of_the_directory() {
    let work = Work::new();
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let root = rustix::process::geteuid().is_root();
    if !root || !there("umoci") || !there("skopeo") {
        eprintln!("not run: it needs root, umoci and skopeo (Debian: apt install umoci skopeo)");
        return;
    }
    let script = "umoci init --layout oci && umoci new --image oci:t && umoci unpack --image oci:t bundle && \
                  cp -a root/. bundle/rootfs && umoci repack --image oci:t bundle && \
                  mkdir bundle/rootfs/more && rm bundle/rootfs/bin/link && umoci repack --image oci:t bundle && \
                  umoci gc --layout oci && \
                  skopeo --insecure-policy copy -q oci:oci:t docker-archive:saved.tar:t:1 && \
                  skopeo --insecure-policy copy -q oci:oci:t oci-archive:oci.tar:t";
    work.run("sh", &["-ec", script]);
    let expected = ["bin", "bin/alias", "bin/tool", "more"];
    for source in ["oci", "saved.tar", "oci.tar"] {
        work.done(&["pack", source, "-o", "image", "--compress", "zstd"]);
        assert_eq!(names(&work, "image"), expected, "{source}");
        assert_eq!(work.inspect("image")["hard_links"], 1, "{source}");
    }
}

/// A layout as docker 25 and later save it: in `index.json` every image is called by its tag only.
fn saved(work: &Work, images: &[(&str, &str, &str)]) {
    fs::create_dir_all(work.path("d/blobs/sha256")).unwrap();
    let blob = |bytes: &[u8]| {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(work.path("d/blobs/sha256").join(&hex), bytes).unwrap();
        hex
    };
    let (mut index, mut names) = (Vec::new(), Vec::new());
    for (name, architecture, variant) in images {
        let file = format!("is-{}", name.replace(['/', ':'], "-"));
        let layer = blob(&tar(&[(&format!("{file}-{variant}"), Regular, "1")]));
        let config =
            serde_json::json!({"architecture": architecture, "os": "linux", "variant": variant, "of": name});
        let config = blob(config.to_string().as_bytes());
        let digest = |hex: &str| serde_json::json!({"digest": format!("sha256:{hex}"), "size": 1});
        let manifest = serde_json::json!({"config": digest(&config), "layers": [digest(&layer)]});
        let manifest = blob(manifest.to_string().as_bytes());
        let tag = name.rsplit(':').next().unwrap();
        index.push(serde_json::json!({
            "digest": format!("sha256:{manifest}"),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }));
        names.push(serde_json::json!({
            "Config": format!("blobs/sha256/{config}"),
            "RepoTags": [name],
            "Layers": [format!("blobs/sha256/{layer}")],
        }));
    }
    // The provenance of an image, which is none for Linux, and a platform that was not saved.
    let other = blob(b"{}");
    index.push(serde_json::json!({
        "digest": format!("sha256:{other}"),
        "platform": {"architecture": "unknown", "os": "unknown"},
    }));
    index.push(serde_json::json!({
        "digest": format!("sha256:{}", "0".repeat(64)),
        "platform": {"architecture": "s390x", "os": "linux"},
    }));
    fs::write(work.path("d/index.json"), serde_json::json!({"manifests": index}).to_string()).unwrap();
    fs::write(work.path("d/manifest.json"), serde_json::json!(names).to_string()).unwrap();
    fs::write(work.path("d/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

#[test]
fn images_of_docker_are_found_by_every_name() {
    let work = Work::new();
    saved(
        &work,
        &[("alpine:latest", "amd64", ""), ("busybox:latest", "amd64", ""), ("ghcr.io/a/tool:7", "amd64", "")],
    );
    let pack = |name: &str| {
        work.done(&["pack", "d", "-o", "image", "--arch", "amd64", "--image", name]);
        let found: Vec<_> =
            names(&work, "image").into_iter().filter(|name| name.starts_with("is-")).collect();
        found.join(" ")
    };
    for name in ["busybox", "busybox:latest", "library/busybox", "docker.io/library/busybox:latest"] {
        assert_eq!(pack(name), "is-busybox-latest-", "{name}");
    }
    for name in ["tool", "tool:7", "a/tool", "ghcr.io/a/tool"] {
        assert_eq!(pack(name), "is-ghcr.io-a-tool-7-", "{name}");
    }
    let index: serde_json::Value = serde_json::from_slice(&work.read("d/index.json")).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_string();
    assert_eq!(pack(&digest), "is-alpine-latest-");
    assert_eq!(pack(&format!("alpine@{digest}")), "is-alpine-latest-");
    // The start of a digest: that of the manifest, and that of the configuration, as `docker images` shows
    // it.
    let saved: serde_json::Value = serde_json::from_slice(&work.read("d/manifest.json")).unwrap();
    let config = saved[0]["Config"].as_str().unwrap().rsplit('/').next().unwrap().to_string();
    for id in [&digest[..19], &digest[7..19], &config[..12], &format!("sha256:{}", &config[..12])] {
        assert_eq!(pack(id), "is-alpine-latest-", "{id}");
    }
    let error = work.fails(&["pack", "d", "-o", "image", "--arch", "amd64", "--image", "latest"]);
    assert!(
        error.contains("alpine:latest (linux/amd64), busybox:latest (linux/amd64): choose one with --image"),
        "{error}"
    );
    let error = work.fails(&["pack", "d", "-o", "image", "--arch", "amd64", "--image", "debian"]);
    assert!(error.contains("no image called debian; it has alpine:latest (linux/amd64), "), "{error}");
    let error = work.fails(&["pack", "d", "-o", "image", "--arch", "riscv64", "--image", "alpine"]);
    assert!(
        error.contains("no image for linux/riscv64 called alpine; it has alpine:latest (linux/amd64)"),
        "{error}"
    );
    let error = work.fails(&["pack", "d", "-o", "image", "--arch", "s390x"]);
    assert!(error.contains("is missing: this platform of the image was not saved"), "{error}");
    // The same as an archive.
    work.run("tar", &["-C", "d", "-cf", "d.tar", "."]);
    work.done(&["pack", "d.tar", "-o", "image", "--arch", "amd64", "--image", "busybox"]);
}

#[test]
fn variants_of_an_architecture_are_chosen() {
    let work = Work::new();
    saved(&work, &[("x:1", "arm", "v6"), ("x:1", "arm", "v7"), ("x:1", "arm64", "v8")]);
    let error = work.fails(&["pack", "d", "-o", "image", "--arch", "arm"]);
    assert!(error.contains("x:1 (linux/arm/v6), x:1 (linux/arm/v7): choose one with --arch"), "{error}");
    for (arch, found) in [
        ("arm/v7", "is-x-1-v7"),
        ("armhf", "is-x-1-v7"),
        ("linux/arm/v6", "is-x-1-v6"),
        ("arm64", "is-x-1-v8"),
        ("aarch64", "is-x-1-v8"),
    ] {
        work.done(&["pack", "d", "-o", "image", "--arch", arch, "--image", "x:1"]);
        assert!(names(&work, "image").contains(&found.to_string()), "{arch}");
    }
}
