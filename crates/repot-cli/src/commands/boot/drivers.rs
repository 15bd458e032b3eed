//! The drivers of the network card that `boot` gives the guest. Kernels of distributions have them as
//! modules; the runner loads them before the program.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::modules::{self, Modules};

/// The bus, and the card on it.
const DRIVERS: [&str; 2] = ["virtio_pci", "virtio_net"];

/// The modules for a kernel, from where it was installed or unpacked. `None` without such a folder: then the
/// kernel is probably one that has all drivers built in.
pub(super) fn of(kernel: &Path) -> Result<Option<Modules>> {
    let Some(release) = release(kernel) else { return Ok(None) };
    let Some(folder) = folders(kernel, &release).into_iter().find(|folder| folder.is_dir()) else {
        return Ok(None);
    };
    let found = modules::of_network(&folder, &release, &DRIVERS);
    let found = found.with_context(|| format!("drivers of the network card: {}", folder.display()))?;
    Ok((!found.names.is_empty()).then_some(found))
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
        assert_eq!(of(&kernel).unwrap(), None);
        let folder = dir.path().join("usr/lib/modules/6.12.9-cloud");
        std::fs::create_dir_all(&folder).unwrap();
        let error = format!("{:#}", of(&kernel).unwrap_err());
        assert!(error.contains("run depmod(8)"), "{error}");
        std::fs::write(folder.join("modules.dep"), "net/virtio_net.ko: net/failover.ko\nnet/failover.ko:\n")
            .unwrap();
        let error = format!("{:#}", of(&kernel).unwrap_err());
        assert!(error.contains("no module virtio_pci, and it is not built in"), "{error}");
        std::fs::write(folder.join("modules.builtin"), "kernel/virtio_pci.ko\n").unwrap();
        std::fs::create_dir_all(folder.join("net")).unwrap();
        for name in ["virtio_net", "failover"] {
            std::fs::write(folder.join(format!("net/{name}.ko")), name).unwrap();
        }
        let found = of(&kernel).unwrap().unwrap();
        assert_eq!(
            (&*found.release, &*found.names),
            ("6.12.9-cloud", &["failover.ko".into(), "virtio_net.ko".into()][..])
        );
    }
}
