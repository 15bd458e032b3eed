//! A container image as a source: an OCI image layout (a directory or a tar archive), or the output of
//! `docker save`.
//!
//! The layers of one image are found and applied in order. Every blob is verified against its digest before
//! it is used.

mod choose;
mod images;
mod reference;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use self::choose::choose;
use super::acl;
use super::layer::Layer;
use super::limits::{self, Limited, Weight};
use super::notes::Notes;
use super::tarball::Tarball;
use crate::container::Config;
use crate::tree::{Attributes, Tree};

/// The location of the files of an image.
#[derive(Debug)]
pub enum Store {
    /// A directory.
    Directory(PathBuf),
    /// A tar archive.
    Archive(Tarball),
}

/// Which of several images to use.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Its name, tag or digest.
    pub image: Option<String>,
    /// Its architecture in OCI terms, with a variant or without.
    pub architecture: String,
}

/// A container image that was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) tree: Tree,
    pub(super) acls: Vec<acl::Text>,
    pub(super) notes: Notes,
    /// How it is run.
    pub(super) config: Config,
}

impl Store {
    /// Whether this is a container image and not a root file system.
    pub fn is_image(&self) -> Result<bool> {
        if self.has("oci-layout")? && self.has("index.json")? {
            return Ok(true);
        }
        if !self.has("manifest.json")? {
            return Ok(false);
        }
        // A root file system may contain an unrelated manifest.json.
        Ok(serde_json::from_slice::<Vec<images::Saved>>(&self.json("manifest.json")?).is_ok())
    }

    /// Applies the layers of the chosen image. Layers are decompressed into unnamed files in `scratch`.
    pub(super) fn load(&self, choice: &Choice, scratch: &Path, weight: &mut Weight) -> Result<Loaded> {
        let (layers, config) = choose(&images::all(self)?, choice).with_context(|| self.name())?;
        ensure!(!layers.is_empty(), "{}: the image has no layers", self.name());
        ensure!(
            layers.len() <= limits::LAYERS,
            "{}: the image has {} layers, more than the limit of {}",
            self.name(),
            layers.len(),
            limits::LAYERS
        );
        let mut tree = Tree::new(Attributes { permissions: 0o755, ..Attributes::default() });
        let (mut acls, mut notes) = (Vec::new(), Notes::default());
        for path in layers {
            let tarball = self.layer(&path, scratch, weight)?;
            let mut layer = Layer::image(&mut tree, weight);
            tarball.apply(&mut layer)?;
            acls.append(&mut layer.acls);
            notes.append(layer.notes);
        }
        Ok(Loaded { tree, acls, notes, config })
    }

    fn layer(&self, path: &str, scratch: &Path, weight: &mut Weight) -> Result<Tarball> {
        let name = format!("{}/{path}", self.name());
        let mut input = Hashed { input: self.open(path)?, hash: Sha256::new() };
        let tarball = Tarball::spool(&mut input, &name, scratch, weight)?;
        io::copy(&mut input, &mut io::sink()).with_context(|| format!("cannot read {name}"))?;
        let verified = verify(path, &input.hash.finalize()).with_context(|| name)?;
        Ok(if verified { tarball.verified() } else { tarball })
    }

    fn parse<T: for<'a> Deserialize<'a>>(&self, path: &str) -> Result<T> {
        let bytes = self.json(path)?;
        verify(path, &Sha256::digest(&bytes)).with_context(|| format!("{}/{path}", self.name()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{}/{path}: unexpected JSON", self.name()))
    }

    fn json(&self, path: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Limited::new(self.open(path)?, limits::JSON)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {}/{path}", self.name()))?;
        Ok(bytes)
    }

    fn has(&self, path: &str) -> Result<bool> {
        match self {
            Store::Directory(directory) => Ok(directory.join(path).is_file()),
            Store::Archive(tarball) => Ok(tarball.member(path)?.is_some()),
        }
    }

    fn open(&self, path: &str) -> Result<Box<dyn Read>> {
        match self {
            Store::Directory(directory) => {
                let beneath = crate::tree::beneath::Beneath::open(directory)?;
                let file = beneath
                    .file(path.as_bytes())
                    .with_context(|| format!("cannot open {}/{path}", self.name()))?;
                Ok(Box::new(File::from(file)))
            }
            Store::Archive(tarball) => {
                let (offset, len) =
                    tarball.member(path)?.with_context(|| format!("{}: no file {path}", self.name()))?;
                Ok(Box::new(tarball.range(offset, len)))
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Store::Directory(directory) => directory.display().to_string(),
            Store::Archive(tarball) => tarball.name().to_string(),
        }
    }
}

/// The path of a blob. Only sha256 is used in practice. Checking the digits keeps the path inside the image.
fn blob(digest: &str) -> Result<String> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    ensure!(
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{digest:?} is not a sha256 digest"
    );
    Ok(format!("blobs/sha256/{hex}"))
}

/// Verifies a blob against the digest in its path. Returns false for other files, which have none.
fn verify(path: &str, hash: &[u8]) -> Result<bool> {
    let Some(expected) = path.strip_prefix("blobs/sha256/") else { return Ok(false) };
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(hash == expected, "corrupt: its sha256 is {hash}");
    Ok(true)
}

/// Hashes the bytes that are read through it.
struct Hashed<R> {
    input: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.hash.update(&buffer[..got]);
        Ok(got)
    }
}
