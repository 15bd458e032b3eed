//! The images in a layout or in the output of `docker save`, with every name that they have.
//!
//! Docker 25 and later write a layout with a `manifest.json` beside it. In the layout every image is called
//! by its tag only; the names are in an annotation of containerd and in `manifest.json`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::reference::Architecture;
use super::{Store, blob};
use crate::container::Config;

/// Maximum depth of indexes that point to indexes.
const INDEX_DEPTH: usize = 4;
/// Images of one source. Each is a file to read.
const IMAGES: usize = 4096;

/// One image.
#[derive(Debug)]
pub(super) struct Image {
    /// Its names and tags.
    pub(super) names: Vec<String>,
    /// The digests that stand for it: of its manifest, the indexes above, and its configuration.
    pub(super) digests: Vec<String>,
    /// `None` if it is not known.
    pub(super) architecture: Option<Architecture>,
    /// The paths of its layers, lowest first, or why they are not known.
    pub(super) layers: Result<Vec<String>, String>,
    /// How it is run.
    pub(super) config: Config,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Part of a descriptor, and of the configuration of an image.
#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
    variant: Option<String>,
    /// Only in the configuration of an image.
    config: Option<Config>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// One image of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Saved {
    config: Option<String>,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// All images for Linux.
pub(super) fn all(store: &Store) -> Result<Vec<Image>> {
    let saved: Vec<Saved> = if store.has("manifest.json")? {
        store.parse("manifest.json").unwrap_or_default()
    } else {
        Vec::new()
    };
    if !store.has("index.json")? {
        return saved.into_iter().filter_map(|saved| from_saved(store, saved).transpose()).collect();
    }
    let index: Index = store.parse("index.json")?;
    let mut images = Vec::new();
    for descriptor in &index.manifests {
        below(store, descriptor, &mut Above::default(), &mut images)?;
    }
    for image in &mut images {
        // Both write the digest of the configuration, one as a path.
        let same = |saved: &&Saved| {
            let path = saved.config.as_deref().unwrap_or_default();
            image.digests.iter().any(|digest| blob(digest).is_ok_and(|blob| blob == path))
        };
        let tags = saved.iter().filter(same).filter_map(|saved| saved.repo_tags.clone()).flatten();
        image.names.extend(tags.collect::<Vec<_>>());
        image.names.sort();
        image.names.dedup();
    }
    Ok(merged(images))
}

/// What the indexes above an image say about it.
#[derive(Debug, Default)]
struct Above {
    names: Vec<String>,
    digests: Vec<String>,
}

fn below(store: &Store, at: &Descriptor, above: &mut Above, images: &mut Vec<Image>) -> Result<()> {
    ensure!(above.digests.len() < INDEX_DEPTH, "indexes are nested more than {INDEX_DEPTH} deep");
    ensure!(images.len() < IMAGES, "more than {IMAGES} images");
    let path = blob(&at.digest)?;
    let known = above.names.len();
    for key in ["io.containerd.image.name", "org.opencontainers.image.ref.name"] {
        above.names.extend(at.annotations.get(key).cloned());
    }
    above.digests.push(at.digest.clone());
    let found = if at.platform.as_ref().is_some_and(|platform| platform.os != "linux") {
        Ok(())
    } else if store.has(&path)? {
        let manifest: Manifest = store.parse(&path)?;
        if manifest.manifests.is_empty() {
            images.extend(image(store, at, above, manifest)?);
            Ok(())
        } else {
            manifest.manifests.iter().try_for_each(|inner| below(store, inner, above, images))
        }
    } else {
        // Docker names all platforms of an image in its index, and saves one of them.
        images.push(Image {
            names: above.names.clone(),
            digests: above.digests.clone(),
            architecture: at.platform.as_ref().map(architecture),
            layers: Err(format!("{path} is missing: this platform of the image was not saved")),
            config: Config::default(),
        });
        Ok(())
    };
    above.digests.pop();
    above.names.truncate(known);
    found
}

fn image(store: &Store, at: &Descriptor, above: &Above, manifest: Manifest) -> Result<Option<Image>> {
    let mut digests = above.digests.clone();
    let mut platform = None;
    if let Some(config) = &manifest.config {
        digests.push(config.digest.clone());
        // Something other than an image for containers has another configuration.
        platform = blob(&config.digest).and_then(|path| store.parse::<Platform>(&path)).ok();
    }
    if platform.as_ref().is_some_and(|platform| platform.os != "linux") {
        return Ok(None);
    }
    let config = platform.as_mut().and_then(|platform| platform.config.take()).unwrap_or_default();
    let platform = at.platform.as_ref().or(platform.as_ref());
    let layers = manifest.layers.iter().map(usable).collect::<Result<_>>();
    Ok(Some(Image {
        names: above.names.clone(),
        digests,
        architecture: platform.map(architecture),
        layers: layers.map_err(|error| format!("{error:#}")),
        config,
    }))
}

fn from_saved(store: &Store, saved: Saved) -> Result<Option<Image>> {
    let mut platform = match &saved.config {
        Some(path) if store.has(path)? => store.parse::<Platform>(path).ok(),
        _ => None,
    };
    if platform.as_ref().is_some_and(|platform| platform.os != "linux") {
        return Ok(None);
    }
    // The configuration is called by its digest, and that is the ID of the image.
    let hex = saved
        .config
        .as_deref()
        .map(|path| path.trim_end_matches(".json").trim_start_matches("blobs/sha256/"));
    Ok(Some(Image {
        names: saved.repo_tags.unwrap_or_default(),
        digests: hex.map(|hex| format!("sha256:{hex}")).into_iter().collect(),
        architecture: platform.as_ref().map(architecture),
        layers: Ok(saved.layers),
        config: platform.as_mut().and_then(|platform| platform.config.take()).unwrap_or_default(),
    }))
}

/// Images that are listed several times, with all their names.
fn merged(images: Vec<Image>) -> Vec<Image> {
    let mut merged: Vec<Image> = Vec::new();
    for image in images {
        let same = |other: &&mut Image| {
            other.layers.is_ok()
                && other.layers == image.layers
                && other.architecture == image.architecture
                && other.digests.last() == image.digests.last()
        };
        match merged.iter_mut().find(same) {
            Some(other) => {
                other.names.extend(image.names);
                other.digests.extend(image.digests);
            }
            None => merged.push(image),
        }
    }
    merged
}

fn architecture(platform: &Platform) -> Architecture {
    let variant = platform.variant.clone().filter(|variant| !variant.is_empty());
    Architecture { name: platform.architecture.clone(), variant }
}

fn usable(layer: &Descriptor) -> Result<String> {
    let media_type = layer.media_type.as_deref().unwrap_or_default();
    if media_type.contains("encrypted") {
        bail!("the layer {} is encrypted", layer.digest);
    }
    blob(&layer.digest).context("a layer has no usable digest")
}
