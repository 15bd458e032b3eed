//! The drivers of the devices that `boot` gives the guest. Kernels of distributions have them as modules; the
//! runner loads them before the program.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::modules::{self, Modules};

/// The bus of a network card, and the card.
pub(super) const NETWORK: [&str; 2] = ["virtio_pci", "virtio_net"];

/// The modules of a kernel, where it was installed or unpacked.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    pub(super) release: String,
}

impl Folder {
    /// `None` without such a folder: then the kernel is probably one that has all drivers built in.
    pub(super) fn of(kernel: &Path) -> Option<Folder> {
        let release = release(kernel)?;
        let path = folders(kernel, &release).into_iter().find(|folder| folder.is_dir())?;
        Some(Folder { path, release })
    }

    /// The modules of these drivers, and those that they need. Without those that are built in.
    pub(super) fn modules(&self, drivers: &[&str]) -> Result<Modules> {
        let found = modules::for_devices(&self.path, &self.release, drivers);
        found.with_context(|| format!("drivers for the guest: {}", self.path.display()))
    }
}

/// Where the modules may be: beside the kernel, in the root that it is in, and on this machine.
fn folders(kernel: &Path, release: &str) -> Vec<PathBuf> {
    let whole = kernel.canonicalize().unwrap_or_else(|_| kernel.to_path_buf());
    let beside = whole.parent().unwrap_or(Path::new("/"));
    let mut folders = Vec::new();
    // Of Fedora, for instance: /usr/lib/modules/RELEASE/vmlinuz.
    folders.extend(beside.ends_with(release).then(|| beside.to_path_buf()));
    for root in [Some(beside), beside.parent(), Some(Path::new("/"))].into_iter().flatten() {
        folders.extend(["lib/modules", "usr/lib/modules"].map(|modules| root.join(modules).join(release)));
    }
    folders
}

/// The release of a kernel: from the header of a bzImage, else from a name such as vmlinuz-RELEASE.
fn release(kernel: &Path) -> Option<String> {
    from_header(kernel).or_else(|| {
        let name = kernel.canonicalize().ok()?.file_name()?.to_str()?.to_owned();
        name.split_once('-').map(|(_, release)| release.to_owned())
    })
}

/// The text that `kernel_version` of the x86 boot protocol points to (Documentation/arch/x86/boot.rst).
fn from_header(kernel: &Path) -> Option<String> {
    let mut file = File::open(kernel).ok()?;
    let mut header = [0; 0x210];
    file.read_exact(&mut header).ok()?;
    let offset = u16::from_le_bytes([header[0x20e], header[0x20f]]);
    if &header[0x202..0x206] != b"HdrS" || offset == 0 {
        return None;
    }
    file.seek(SeekFrom::Start(u64::from(offset) + 0x200)).ok()?;
    let mut text = Vec::new();
    file.take(256).read_to_end(&mut text).ok()?;
    let end = text.iter().position(|byte| matches!(byte, b' ' | 0))?;
    String::from_utf8(text[..end].to_vec()).ok().filter(|release| !release.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel as `dpkg -x` leaves it, whose release only its header tells.
    fn kernel(dir: &Path, name: &str) -> PathBuf {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e] = 0x80;
        let text = b"6.12.9-cloud (somebody) #1";
        image[0x280..0x280 + text.len()].copy_from_slice(text);
        std::fs::create_dir_all(dir.join("boot")).unwrap();
        let path = dir.join("boot").join(name);
        std::fs::write(&path, image).unwrap();
        path
    }

    #[test]
    fn release_is_read_from_the_kernel_itself() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(release(&kernel(dir.path(), "vmlinuz")).unwrap(), "6.12.9-cloud");
        let other = dir.path().join("vmlinux-5.10.1");
        std::fs::write(&other, "no header").unwrap();
        assert_eq!(release(&other).unwrap(), "5.10.1");
        assert_eq!(release(&dir.path().join("nosuch")), None);
    }

    #[test]
    fn modules_are_found_beside_the_kernel_and_only_those_that_are_not_built_in() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = kernel(dir.path(), "vmlinuz");
        // Without the folder nothing is known, and nothing is wrong.
        assert!(Folder::of(&kernel).is_none());
        let folder = dir.path().join("usr/lib/modules/6.12.9-cloud");
        std::fs::create_dir_all(&folder).unwrap();
        let of = || Folder::of(&kernel).unwrap().modules(&NETWORK);
        let error = format!("{:#}", of().unwrap_err());
        assert!(error.contains("run depmod(8)"), "{error}");
        std::fs::write(folder.join("modules.dep"), "net/virtio_net.ko: net/failover.ko\nnet/failover.ko:\n")
            .unwrap();
        let error = format!("{:#}", of().unwrap_err());
        assert!(error.contains("no module virtio_pci, and it is not built in"), "{error}");
        std::fs::write(folder.join("modules.builtin"), "kernel/virtio_pci.ko\n").unwrap();
        std::fs::create_dir_all(folder.join("net")).unwrap();
        for name in ["virtio_net", "failover"] {
            std::fs::write(folder.join(format!("net/{name}.ko")), name).unwrap();
        }
        let found = of().unwrap();
        assert_eq!(
            (&*found.release, &*found.names),
            ("6.12.9-cloud", &["failover.ko".into(), "virtio_net.ko".into()][..])
        );
    }
}
