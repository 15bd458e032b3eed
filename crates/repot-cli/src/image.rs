//! Making a root bootable: `/init`, device nodes, the configuration, and the files that hold what cpio
//! cannot.

pub mod config;
mod split;
pub mod xattr_list;

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use repot::{marker, modules};

use crate::init_binary::{self, InitBinary};
use crate::modules::Modules;
use crate::newc::{Header, Totals, Writer};
use crate::tree::{Attributes, Contents, Id, Inode, Kind, Tree};

use self::config::Setting;

/// The new name of the root's own `/init`.
pub(crate) const REAL_INIT: &str = "init.real";

/// Device nodes that programs need before `/dev` is mounted: name, major, minor, permissions.
pub(crate) const NODES: [(&[u8], u32, u32, u32); 3] =
    [(b"console", 5, 1, 0o600), (b"null", 1, 3, 0o666), (b"kmsg", 1, 11, 0o600)];

/// A root that is ready to be written.
#[derive(Debug)]
pub struct Image {
    tree: Tree,
    /// Modification time of added files, in seconds since 1970.
    mtime: u32,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

impl Image {
    /// Adds to a root what an image needs. Times later than `epoch` become `epoch`.
    pub fn new(tree: Tree, init: &InitBinary, settings: &[Setting], epoch: Option<u32>) -> Result<Image> {
        let mut tree = tree;
        let newest = tree.clamp_times(epoch.unwrap_or(u32::MAX));
        let mtime = epoch.unwrap_or(newest);
        let mut image = Image { tree, mtime, warnings: Vec::new() };
        for generated in [marker::BEGIN, marker::END, modules::DIRECTORY, modules::RUNNER_DIRECTORY] {
            image.tree.unlink(Tree::ROOT, generated.as_bytes());
        }
        xattr_list::remove(&mut image.tree);
        let kept = image.init(init)?;
        image.file(Tree::ROOT, marker::BEGIN.as_bytes(), 0o444, Arc::default());
        image.nodes();
        image.configuration(settings, kept)?;
        xattr_list::add(&mut image.tree, mtime);
        Ok(image)
    }

    /// Adds kernel modules for `/init` to load.
    pub fn add_modules(&mut self, all: &[Modules]) {
        let attributes = Attributes { permissions: 0o700, mtime: self.mtime, ..Attributes::default() };
        for modules in all.iter().filter(|modules| !modules.names.is_empty()) {
            let folder = self.tree.directory(Tree::ROOT, modules.directory().as_bytes(), &attributes);
            let folder = self.tree.directory(folder, modules.release.as_bytes(), &attributes);
            for (name, bytes) in modules.members() {
                self.file(folder, name.as_bytes(), 0o400, bytes);
            }
        }
    }

    /// The root as it will be written.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Writes the archive: `/init` first, the end marker last.
    pub fn write<W: Write>(&self, out: W, progress: &mut dyn FnMut(u64)) -> Result<(W, Totals)> {
        let mut writer = Writer::new(out);
        let manifests = xattr_list::names(&self.tree);
        let first =
            [&b"init"[..], marker::BEGIN.as_bytes()].into_iter().chain(manifests.iter().map(|name| &**name));
        self.tree.write_with(&mut writer, &first.collect::<Vec<_>>(), progress)?;
        let totals = writer.totals();
        let ino = u32::try_from(totals.inodes + 1).context("too many inodes for the newc format")?;
        let header = Header {
            name: marker::END.as_bytes().to_vec(),
            ino,
            mode: 0o100_444,
            nlink: 1,
            mtime: self.mtime,
            ..Header::default()
        };
        writer.append(&header, totals.to_string().as_bytes())?;
        Ok((writer.finish()?, totals))
    }

    /// Installs repot as `/init`. Returns the new path of the `/init` that was there, unless that was repot.
    fn init(&mut self, init: &InitBinary) -> Result<Option<String>> {
        let mut kept = None;
        if let Some(id) = self.tree.child(Tree::ROOT, b"init")
            && !self.is_repot(id, init)?
        {
            ensure!(
                self.tree.child(Tree::ROOT, REAL_INIT.as_bytes()).is_none(),
                "the root has an /init that is not repot, and /{REAL_INIT} exists too: rename one of them"
            );
            self.tree.unlink(Tree::ROOT, b"init");
            self.tree.link(Tree::ROOT, REAL_INIT.as_bytes(), id);
            kept = Some(format!("/{REAL_INIT}"));
        }
        self.file(Tree::ROOT, b"init", 0o755, init.bytes.clone());
        Ok(kept)
    }

    fn is_repot(&self, id: Id, init: &InitBinary) -> Result<bool> {
        let Kind::File(contents) = &self.tree.inode(id).kind else { return Ok(false) };
        // repot's init is smaller than 1 MiB.
        if contents.len() > 16 << 20 {
            return Ok(false);
        }
        let bytes = contents.read().context("cannot read the root's /init")?;
        Ok(bytes == *init.bytes || init_binary::is_repot(&bytes))
    }

    fn nodes(&mut self) {
        let attributes = Attributes { permissions: 0o755, mtime: self.mtime, ..Attributes::default() };
        if let Some(id) = self.tree.child(Tree::ROOT, b"dev")
            && self.tree.entries(id).is_none()
        {
            self.warnings.push("/dev is not a directory: no device nodes were added".into());
            return;
        }
        let dev = self.tree.directory(Tree::ROOT, b"dev", &attributes);
        for (name, major, minor, permissions) in NODES {
            let present = self.tree.child(dev, name).map(|id| &self.tree.inode(id).kind);
            if matches!(present, Some(Kind::Character(has, also)) if (*has, *also) == (major, minor)) {
                continue;
            }
            // `docker export` leaves an empty file, into which all output would go.
            if let Some(kind) = present {
                let (name, kind) = (name.escape_ascii(), kind.noun());
                self.warnings
                    .push(format!("/dev/{name} was {kind}: replaced with the device {major}:{minor}"));
            }
            let attributes = Attributes { permissions, ..attributes.clone() };
            let id = self.tree.add(Inode { attributes, kind: Kind::Character(major, minor) });
            self.tree.link(dev, name, id);
        }
    }

    fn configuration(&mut self, settings: &[Setting], kept: Option<String>) -> Result<()> {
        // The init finds it through links too.
        let existing = self.tree.resolve(config::PATH.as_bytes());
        let mut text = match existing.map(|id| &self.tree.inode(id).kind) {
            None => String::new(),
            Some(Kind::File(contents)) if contents.len() <= 1 << 20 => {
                String::from_utf8(contents.read()?).context("/etc/repot.conf is not text")?
            }
            Some(_) => bail!("/etc/repot.conf is not a regular file of at most 1 MiB"),
        };
        let before = text.clone();
        let named = settings.iter().any(|setting| setting.key == "init");
        if let Some(path) = kept.filter(|_| !named) {
            self.warnings.push(format!(
                "the root's own /init is kept as {path} and runs after the move (chain={path} in /etc/repot.conf)"
            ));
            text = config::set(&text, &Setting { key: "chain".into(), value: path });
        }
        for setting in settings {
            text = config::set(&text, setting);
        }
        if text != before {
            let implied = Attributes { permissions: 0o755, mtime: self.mtime, ..Attributes::default() };
            let etc =
                self.tree.make_directories(b"etc", &implied).context("/etc is a loop of symbolic links")?;
            self.file(etc, b"repot.conf", 0o644, text.into_bytes().into());
        }
        Ok(())
    }

    fn file(&mut self, directory: Id, name: &[u8], permissions: u32, bytes: Arc<[u8]>) {
        let attributes = Attributes { permissions, mtime: self.mtime, ..Attributes::default() };
        let id = self.tree.add(Inode { attributes, kind: Kind::File(Contents::Bytes(bytes)) });
        self.tree.link(directory, name, id);
    }
}
