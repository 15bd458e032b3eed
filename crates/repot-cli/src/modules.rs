//! `pack --modules`: the kernel modules that `/init` loads for swap in compressed memory. `boot --network`
//! and `--share`: those that the runner loads.
//!
//! Input: the folders that depmod(8) has indexed, one a kernel release. Output: for each release the files to
//! load, in order, uncompressed: not every kernel unpacks modules itself.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use repot::modules::{DIRECTORY, RUNNER_DIRECTORY};
use repot::options::{Options, Zram};
use repot::payload::index;
use repot::zram::DRIVER;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::codec::any;
use crate::report;
use crate::tree::{Kind, Tree};

/// The maximum size of a module, uncompressed, and of an index of depmod.
const LIMIT: u64 = 64 << 20;

/// Where to take modules from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// From the root that is packed, or else from this machine.
    Auto,
    /// From this folder of a release, such as `/lib/modules/6.12.0`.
    Folder(PathBuf),
}

/// Parses the argument of `--modules`.
pub fn parse(text: &str) -> Result<Choice, std::convert::Infallible> {
    Ok(if text == "auto" { Choice::Auto } else { Choice::Folder(text.into()) })
}

/// The modules of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Modules {
    /// The kernel release, as `uname -r` prints it.
    pub release: String,
    /// Their names in the order in which they are loaded; none if the kernel has everything built in.
    pub names: Vec<String>,
    /// Their contents.
    #[serde(skip)]
    pub files: Vec<Vec<u8>>,
    /// The name of the file that lists them, without `.order`.
    #[serde(skip)]
    list: &'static str,
}

impl Modules {
    /// The files below `.repot-modules/RELEASE`: the order, then the modules.
    pub fn members(&self) -> impl Iterator<Item = (String, Arc<[u8]>)> {
        let order = self.names.iter().map(|name| format!("{name}\n")).collect::<String>();
        let modules = self.names.iter().cloned().zip(self.files.iter().map(|file| file.as_slice().into()));
        std::iter::once((format!("{}.order", self.list), order.into_bytes().into())).chain(modules)
    }

    /// The folder of the image that has them, and the folders of other releases.
    #[must_use]
    pub fn directory(&self) -> &'static str {
        if self.list == DRIVER { DIRECTORY } else { RUNNER_DIRECTORY }
    }

    /// What the index of a payload says of them. Those of the runner are inside the payload.
    pub fn indexed(&self) -> impl Iterator<Item = index::Module> {
        // Without modules there is no folder.
        let is_outside = !self.names.is_empty() && self.directory() == DIRECTORY;
        let members = self.members().filter(move |_| is_outside);
        members.map(|(name, bytes)| index::Module {
            digest: Sha256::digest(&bytes).into(),
            path: format!("{}/{name}", self.release).into_bytes(),
        })
    }

    /// Release and names, for a table.
    pub(crate) fn row(&self) -> (String, String) {
        let names = if self.names.is_empty() { "built in".into() } else { self.names.join(", ") };
        report::row("modules", format!("{}: {names}", self.release))
    }
}

/// Collects what this `/etc/repot.conf` needs, with a warning if it does not use zram.
pub fn configured(choices: &[Choice], tree: &Tree, config: &str) -> Result<(Vec<Modules>, Option<String>)> {
    let options = Options::read(Some(config.as_bytes()), &[]);
    let modules = collect(choices, tree, options.zram_algorithm.as_deref())?;
    let unused =
        "--modules without zram=: add --config zram=auto, or repot.zram=auto on the kernel command line";
    Ok((modules, (options.zram == Zram::No).then(|| unused.into())))
}

/// Collects what zram needs. `algorithm` is `zram.algorithm=`, if it is set.
pub fn collect(choices: &[Choice], tree: &Tree, algorithm: Option<&str>) -> Result<Vec<Modules>> {
    each(choices, tree, |folder| of(folder, algorithm.unwrap_or("zstd")))
}

/// Collects something from all chosen folders.
fn each(
    choices: &[Choice],
    tree: &Tree,
    of: impl Fn(&Folder<'_>) -> Result<Modules>,
) -> Result<Vec<Modules>> {
    let mut found: Vec<Modules> = Vec::new();
    for choice in choices {
        for folder in folders(choice, tree)? {
            let modules = of(&folder).with_context(|| format!("modules of the kernel {}", folder.release))?;
            ensure!(
                found.iter().all(|other| other.release != modules.release),
                "two folders of modules are for the same kernel {}",
                modules.release
            );
            found.push(modules);
        }
    }
    Ok(found)
}

/// A folder of modules, on this machine or in the root.
struct Folder<'a> {
    release: String,
    place: Place<'a>,
}

enum Place<'a> {
    Disk(PathBuf),
    Tree(&'a Tree, String),
}

impl Folder<'_> {
    /// Reads a file, relative to the folder; `None` if it does not exist.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match &self.place {
            Place::Disk(folder) => match fs::read(folder.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                read => {
                    read.map(Some).with_context(|| format!("cannot read {}", folder.join(name).display()))
                }
            },
            Place::Tree(tree, folder) => {
                let path = format!("{folder}/{name}");
                match tree.resolve(path.as_bytes()).map(|id| &tree.inode(id).kind) {
                    Some(Kind::File(contents)) if contents.len() <= LIMIT => {
                        contents.read().map(Some).with_context(|| format!("cannot read /{path}"))
                    }
                    Some(_) => bail!("/{path} of the root is not a regular file of at most {LIMIT} bytes"),
                    None => Ok(None),
                }
            }
        }
    }
}

fn folders<'a>(choice: &Choice, tree: &'a Tree) -> Result<Vec<Folder<'a>>> {
    let Choice::Folder(path) = choice else { return automatic(tree) };
    let whole = path.canonicalize().with_context(|| format!("--modules {}", path.display()))?;
    let release =
        whole.file_name().and_then(|name| name.to_str()).context("--modules: a folder without a name")?;
    Ok(vec![Folder { release: release.to_owned(), place: Place::Disk(whole.clone()) }])
}

/// Every release in the root; without any, the kernel that runs here.
fn automatic(tree: &Tree) -> Result<Vec<Folder<'_>>> {
    let base = "lib/modules";
    let entries = tree.resolve(base.as_bytes()).and_then(|id| tree.entries(id));
    let names = entries.into_iter().flat_map(|entries| entries.keys());
    let mut folders = Vec::new();
    for release in names.filter_map(|name| std::str::from_utf8(name).ok()) {
        let folder =
            Folder { release: release.to_owned(), place: Place::Tree(tree, format!("{base}/{release}")) };
        if folder.read("modules.dep")?.is_some() {
            folders.push(folder);
        }
    }
    if folders.is_empty() {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let path = Path::new("/lib/modules").join(&release);
        ensure!(
            path.join("modules.dep").exists(),
            "--modules auto: neither the root's /lib/modules nor {} has a modules.dep; name the folder of the \
             kernel with --modules DIR",
            path.display()
        );
        folders.push(Folder { release, place: Place::Disk(path) });
    }
    Ok(folders)
}

/// The modules of zram.
fn of(folder: &Folder<'_>, algorithm: &str) -> Result<Modules> {
    // Before 6.12 the driver compresses with modules of the kernel's crypto API, which it does not depend on.
    let other = (version(&folder.release) < (6, 12)).then_some(algorithm);
    needed(folder, DRIVER, &other.into_iter().collect::<Vec<_>>(), &[DRIVER])
}

/// Drivers for the program of an image, which the runner loads. Without a choice: automatically.
pub fn for_program(choices: &[Choice], tree: &Tree, drivers: &[String]) -> Result<Vec<Modules>> {
    let drivers: Vec<&str> = drivers.iter().map(|driver| &**driver).collect();
    let choices = if choices.is_empty() { &[Choice::Auto] } else { choices };
    each(choices, tree, |folder| needed(folder, "program", &[], &drivers))
}

/// Drivers of the devices that `boot` gives a guest, from the folder of a release.
pub fn for_devices(folder: &Path, release: &str, drivers: &[&str]) -> Result<Modules> {
    needed(&Folder { release: release.into(), place: Place::Disk(folder.into()) }, "devices", &[], drivers)
}

/// The modules `optional` and `wanted`, each after those that it needs.
fn needed(folder: &Folder<'_>, list: &'static str, optional: &[&str], wanted: &[&str]) -> Result<Modules> {
    let dep = folder.read("modules.dep")?;
    let dep = dep.context("there is no modules.dep: run depmod(8) for this folder")?;
    let dep = String::from_utf8_lossy(&dep);
    let index = Index::parse(&dep);
    let builtin = folder.read("modules.builtin")?.unwrap_or_default();
    let builtin: BTreeSet<String> = String::from_utf8_lossy(&builtin).lines().map(name).collect();
    let mut order = Vec::new();
    for path in optional.iter().filter_map(|module| index.find(module)) {
        index.visit(path, &mut order);
    }
    for module in wanted {
        match index.find(module) {
            Some(path) => index.visit(path, &mut order),
            None => ensure!(builtin.contains(*module), "{}", missing(module)),
        }
    }
    let mut modules = Modules { release: folder.release.clone(), names: Vec::new(), files: Vec::new(), list };
    for path in order.into_iter().filter(|path| !builtin.contains(&name(path))) {
        let packed =
            folder.read(path)?.with_context(|| format!("modules.dep names {path}, which is missing"))?;
        let module = unpacked(&packed, path)?;
        check_release(&module, &folder.release, path)?;
        modules.names.push(format!("{}.ko", name(path)));
        modules.files.push(module);
    }
    Ok(modules)
}

/// What is wrong with a kernel that lacks a module.
fn missing(module: &str) -> String {
    let zram = if module == DRIVER { ": this kernel has no swap in compressed memory" } else { "" };
    format!("no module {module}, and it is not built in{zram}")
}

/// `modules.dep`: each module and those that it needs, as paths relative to the folder.
struct Index<'a>(HashMap<&'a str, Vec<&'a str>>);

impl<'a> Index<'a> {
    fn parse(text: &'a str) -> Index<'a> {
        let line = |line: &'a str| {
            let (module, needs) = line.split_once(':')?;
            Some((module.trim(), needs.split_ascii_whitespace().collect()))
        };
        Index(text.lines().filter_map(line).collect())
    }

    fn find(&self, wanted: &str) -> Option<&'a str> {
        let wanted = wanted.replace('-', "_");
        // Of several, such as one in updates/, the same one each time.
        self.0.keys().copied().filter(|path| name(path) == wanted).min()
    }

    /// Appends a module after those that it needs.
    fn visit(&self, path: &'a str, order: &mut Vec<&'a str>) {
        // A module that needs itself, by a flaw of the file, is not visited twice.
        self.enter(path, order, &mut BTreeSet::new());
    }

    fn enter(&self, path: &'a str, order: &mut Vec<&'a str>, open: &mut BTreeSet<&'a str>) {
        if order.contains(&path) || !open.insert(path) {
            return;
        }
        for need in self.0.get(path).into_iter().flatten() {
            self.enter(need, order, open);
        }
        order.push(path);
    }
}

/// The name of a module: `lz4hc_compress` of `kernel/lib/lz4/lz4hc-compress.ko.xz`.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn unpacked(packed: &[u8], path: &str) -> Result<Vec<u8>> {
    if path.ends_with(".ko") {
        return Ok(packed.to_vec());
    }
    let mut module = Vec::new();
    let mut packed = packed;
    let decoder = any::decompressed(&mut packed).with_context(|| format!("cannot decompress {path}"))?;
    decoder.take(LIMIT + 1).read_to_end(&mut module).with_context(|| format!("cannot decompress {path}"))?;
    ensure!(module.len() as u64 <= LIMIT, "{path} has more than {LIMIT} bytes");
    Ok(module)
}

/// The kernel refuses a module of another release, which the module names (`vermagic=`).
fn check_release(module: &[u8], release: &str, path: &str) -> Result<()> {
    let key = b"\0vermagic=";
    let Some(at) = module.windows(key.len()).position(|part| part == key) else { return Ok(()) };
    let magic = &module[at + key.len()..];
    let end = magic.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(magic.len());
    let found = String::from_utf8_lossy(&magic[..end]);
    ensure!(
        found == release,
        "{path} is for the kernel {found}: the folder must be called as the release that it is for"
    );
    Ok(())
}

/// The first two numbers of a release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|letter: char| !letter.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_needs_and_only_once() {
        let index = Index::parse(
            "kernel/a.ko.xz: kernel/b.ko.xz kernel/c.ko.xz\nkernel/b.ko.xz: kernel/c.ko.xz\nkernel/c.ko.xz:\n\
             kernel/loop-one.ko: kernel/loop-two.ko\nkernel/loop-two.ko: kernel/loop-one.ko\n",
        );
        let order = |name| {
            let mut order = Vec::new();
            index.visit(index.find(name).unwrap(), &mut order);
            order
        };
        assert_eq!(order("a"), ["kernel/c.ko.xz", "kernel/b.ko.xz", "kernel/a.ko.xz"]);
        assert_eq!(order("loop_one"), ["kernel/loop-two.ko", "kernel/loop-one.ko"]);
        assert_eq!(index.find("d"), None);
    }
}
