//! The software bill of materials: CycloneDX 1.5, as JSON.

use super::date;
use super::linked::Package;
use anyhow::Result;
use repot_harness::build::Linked;
use serde_json::{Value, json};
use std::fs;

/// The document of a program, the packages that are linked into it, and the libraries that come with the
/// compilers.
pub(super) fn document(
    name: &str,
    version: &str,
    linked: &[Package],
    libraries: &[Linked],
    time: u64,
) -> Result<Vec<u8>> {
    let mut components: Vec<Value> = Vec::new();
    for package in linked {
        components.push(component(package));
        components.extend(c_libraries(package)?);
    }
    components.extend(libraries.iter().map(|one| generic(one.name, &one.version, one.license)));
    let program = format!("pkg:cargo/{name}@{version}");
    let inside: Vec<&Value> = components.iter().map(|component| &component["bom-ref"]).collect();
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": date::rfc3339(time),
            "component": {
                "type": "application", "bom-ref": "program", "name": name, "version": version, "purl": program,
            },
        },
        "components": components,
        "dependencies": [{ "ref": "program", "dependsOn": inside }],
    });
    Ok((serde_json::to_string_pretty(&document)? + "\n").into_bytes())
}

fn component(package: &Package) -> Value {
    let purl = format!("pkg:cargo/{}@{}", package.name, package.version);
    let mut component = json!({
        "type": "library", "bom-ref": purl, "name": package.name, "version": package.version, "purl": purl,
        // Older manifests separate alternatives by a slash, which SPDX does not know.
        "licenses": [{ "expression": package.license.replace('/', " OR ") }],
    });
    if let Some(checksum) = &package.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

/// The C library that a package has in it: its name is in that of the package, its version in a header.
fn c_libraries(package: &Package) -> Result<Vec<Value>> {
    let (name, license, header, prefixes) = match package.name.as_str() {
        "zstd-sys" => (
            "zstd",
            "BSD-3-Clause",
            "zstd/lib/zstd.h",
            ["#define ZSTD_VERSION_MAJOR", "#define ZSTD_VERSION_MINOR", "#define ZSTD_VERSION_RELEASE"],
        ),
        "liblzma-sys" => (
            "xz",
            "0BSD",
            "xz/src/liblzma/api/lzma/version.h",
            ["#define LZMA_VERSION_MAJOR", "#define LZMA_VERSION_MINOR", "#define LZMA_VERSION_PATCH"],
        ),
        _ => return Ok(Vec::new()),
    };
    let text = fs::read_to_string(package.folder.join(header))?;
    let numbers: Vec<&str> = prefixes
        .iter()
        .filter_map(|prefix| text.lines().find_map(|line| line.strip_prefix(prefix)).map(str::trim))
        .collect();
    let version = numbers.join(".");
    anyhow::ensure!(numbers.len() == 3, "{header} has no version of {name}");
    Ok(vec![generic(name, &version, license)])
}

/// A library that is no package of cargo.
fn generic(name: &str, version: &str, license: &str) -> Value {
    let purl = format!("pkg:generic/{name}@{version}");
    json!({
        "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
        "licenses": [{ "expression": license }],
    })
}

#[cfg(test)]
mod tests {
    use super::super::linked;
    use super::*;
    use repot_harness::build::{self, Arch};

    #[test]
    fn the_bill_names_every_library_with_its_license_and_no_reference_twice() {
        let packages = linked::packages().unwrap();
        let linked = packages.of(&["repot-init"], &["payload"], "x86_64-unknown-linux-musl").unwrap();
        let libraries = build::libraries(Arch::X86_64).unwrap();
        let bytes = document("repot-init", "1.0.0", &linked, &libraries, 0).unwrap();
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        let components = document["components"].as_array().unwrap();
        let mut names: Vec<&str> = components.iter().filter_map(|one| one["bom-ref"].as_str()).collect();
        for name in [
            "pkg:cargo/rustix@",
            "pkg:cargo/sha2@",
            "pkg:generic/zstd@1.",
            "pkg:generic/rust@1.",
            "pkg:generic/musl@1.",
        ] {
            assert!(names.iter().any(|known| known.starts_with(name)), "{name}: {names:?}");
        }
        assert!(components.iter().all(|one| one["licenses"][0]["expression"].as_str().is_some()));
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(all, names.len());
    }
}
