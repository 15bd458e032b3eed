//! Directories of this machine in the guest: by 9p, which QEMU serves itself, or by virtio-fs, which a daemon
//! serves, for kernels that have only that driver.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use repot::run::{Share, Transport};
use rustix::io::{FdFlags, fcntl_setfd};
use tempfile::TempDir;

use super::drivers::Folder;
use crate::cli;
use crate::sys;

/// Where the daemon is, if it is not in PATH: as Debian has installed it, with QEMU up to 12 and since then.
const DAEMON: &str = "virtiofsd";
const ELSEWHERE: [&str; 3] = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd"];

/// The directories to share, and how.
#[derive(Debug)]
pub(super) struct Shares {
    transport: Transport,
    list: Vec<(PathBuf, Share)>,
}

impl Shares {
    /// Finds the directories, and their places in the guest.
    pub(super) fn new(args: &[cli::Share]) -> Result<Shares> {
        let list = args.iter().enumerate().map(|(number, asked)| share(number, asked));
        Ok(Shares { transport: Transport::NineP, list: list.collect::<Result<_>>()? })
    }

    /// Decides on the transport by what the kernel has.
    pub(super) fn choose(&mut self, modules: Option<&Folder>) -> Result<()> {
        if let (Some(modules), false) = (modules, self.list.is_empty()) {
            self.transport = transport(modules)?;
        }
        for (_, share) in &mut self.list {
            share.transport = self.transport;
        }
        Ok(())
    }

    /// The drivers that the guest needs.
    pub(super) fn drivers(&self) -> &'static [&'static str] {
        if self.list.is_empty() { &[] } else { self.transport.drivers() }
    }

    /// The parameters by which the runner mounts them. With another init, says on standard error how the
    /// guest does it itself.
    pub(super) fn parameters(&self, has_runner: bool) -> Option<String> {
        let mut parameters = Vec::new();
        for (directory, share) in &self.list {
            let (directory, path) = (directory.display(), share.path.to_string_lossy());
            if has_runner {
                say!("{directory} is {path} in the guest");
                let text = share.text();
                parameters.push(format!("\"run.share={}\"", String::from_utf8_lossy(&text)));
            } else {
                let options = share.transport.options().to_string_lossy();
                let options = if options.is_empty() { String::new() } else { format!(" -o {options}") };
                let (fstype, tag) = (share.transport.fstype().to_string_lossy(), share.tag.to_string_lossy());
                say!("for {directory}, in the guest: mount -t {fstype}{options} {tag} {path}");
            }
        }
        (!parameters.is_empty()).then(|| parameters.join(" "))
    }

    /// Adds what QEMU needs, and starts what serves the directories.
    pub(super) fn serve(&self, command: &mut Command, memory: u64) -> Result<Daemons> {
        let mut daemons = Daemons::default();
        if self.list.is_empty() {
            return Ok(daemons);
        }
        if self.transport == Transport::NineP {
            for (directory, share) in &self.list {
                command.arg("-virtfs").arg(local(directory, share));
            }
            return Ok(daemons);
        }
        // The daemon reads and writes the memory of the guest.
        let object = format!("memory-backend-memfd,id=repot-memory,size={memory},share=on");
        command.args(["-object", &object, "-machine", "memory-backend=repot-memory"]);
        for (directory, share) in &self.list {
            let socket = daemons.start(directory, share)?;
            let (socket, tag) = (doubled(&socket), share.tag.to_string_lossy());
            let mut chardev = OsString::from(format!("socket,id=repot-{tag},path="));
            chardev.push(socket);
            command.arg("-chardev").arg(chardev);
            command.args(["-device", &format!("vhost-user-fs-pci,chardev=repot-{tag},tag={tag}")]);
        }
        Ok(daemons)
    }
}

fn transport(modules: &Folder) -> Result<Transport> {
    if modules.modules(Transport::NineP.drivers()).is_ok() {
        return Ok(Transport::NineP);
    }
    if let Err(error) = modules.modules(Transport::Virtiofs.drivers()) {
        bail!("--share: the kernel {} has neither 9p nor virtio-fs: {error:#}", modules.release);
    }
    ensure!(
        daemon().is_some(),
        "--share: the kernel {} has virtio-fs but not 9p, and virtiofsd, which serves it, is not installed \
         (Debian: apt install virtiofsd, or qemu-system-common before 13)",
        modules.release
    );
    Ok(Transport::Virtiofs)
}

fn share(number: usize, asked: &cli::Share) -> Result<(PathBuf, Share)> {
    let shown = || format!("--share {}", asked.directory.display());
    let directory = asked.directory.canonicalize().with_context(shown)?;
    ensure!(directory.is_dir(), "{}: not a directory", shown());
    let path = match &asked.path {
        Some(path) => path.clone(),
        None => {
            let name = directory.file_name().with_context(|| format!("{}: name a path: /:/mnt", shown()))?;
            format!("/mnt/{}", name.to_string_lossy())
        }
    };
    let text = format!("9p{}:share{number}:{path}", if asked.read_only { ",ro" } else { "" });
    // A quotation mark cannot be passed on the kernel command line.
    let share = Share::parse(text.as_bytes()).filter(|_| !path.contains('"'));
    let share = share.with_context(|| format!("{}: {path:?} cannot be a mount point", shown()))?;
    Ok((directory, share))
}

/// QEMU's own server. A guest may own files as the user who runs QEMU can; what it can't own it does not.
fn local(directory: &Path, share: &Share) -> OsString {
    let mut text = OsString::from("local,path=");
    text.push(doubled(directory));
    let read_only = if share.read_only { ",readonly=on" } else { "" };
    text.push(format!(",mount_tag={},security_model=none{read_only}", share.tag.to_string_lossy()));
    text
}

/// A path in QEMU's options, where a comma is doubled.
fn doubled(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes().split(|byte| *byte == b',');
    std::os::unix::ffi::OsStringExt::from_vec(bytes.collect::<Vec<_>>().join(&b",,"[..]))
}

fn daemon() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(DAEMON));
    in_path.chain(ELSEWHERE.map(PathBuf::from)).find(|path| path.is_file())
}

/// The daemons, which end with QEMU, and their sockets.
#[derive(Debug, Default)]
pub(super) struct Daemons {
    directory: Option<TempDir>,
    running: Vec<(Child, File)>,
}

impl Daemons {
    /// Starts one, and returns the path of its socket.
    fn start(&mut self, directory: &Path, share: &Share) -> Result<PathBuf> {
        if self.directory.is_none() {
            self.directory = Some(tempfile::tempdir().context("cannot create a temporary directory")?);
        }
        let folder = self.directory.as_ref().context("no temporary directory")?.path();
        let socket = folder.join(share.tag.to_string_lossy().into_owned());
        // A listening socket, so that QEMU can connect before the daemon has started.
        let listener = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;
        fcntl_setfd(&listener, FdFlags::empty()).context("fcntl F_SETFD")?;
        let messages = tempfile::tempfile().context("cannot create a temporary file")?;
        let mut command = Command::new(daemon().context("virtiofsd is not installed")?);
        // Its options end at a comma, and the two programs of this name have no escape in common.
        let shown = directory.display();
        ensure!(!shown.to_string().contains(','), "--share {shown}: virtiofsd takes no path with a comma");
        let mut source = OsString::from("source=");
        source.push(directory);
        command.arg(format!("--fd={}", listener.as_raw_fd())).arg("-o").arg(source).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(messages.try_clone().context("a temporary file")?);
        sys::end_with_this_thread(&mut command);
        let child =
            command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
        self.running.push((child, messages));
        Ok(socket)
    }

    /// What a daemon said that has ended with an error.
    pub(super) fn complaint(&mut self) -> Option<String> {
        self.running.iter_mut().find_map(|(child, messages)| {
            let status = child.try_wait().ok()??;
            let mut text = String::new();
            messages.rewind().and_then(|()| messages.read_to_string(&mut text)).ok()?;
            (!status.success()).then(|| format!("virtiofsd ended with {status}: {}", text.trim()))
        })
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for (child, _) in &mut self.running {
            // It may have ended with QEMU.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> cli::Share {
        text.parse().unwrap()
    }

    #[test]
    fn a_share_has_a_place_in_the_guest() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap().join("a,b");
        std::fs::create_dir(&dir).unwrap();
        let (path, share) = share(0, &asked(dir.to_str().unwrap())).unwrap();
        assert_eq!(share.text(), b"9p:share0:/mnt/a,b");
        let local = local(&path, &share).into_string().unwrap();
        assert!(local.ends_with("a,,b,mount_tag=share0,security_model=none"), "{local}");
        let read_only = self::share(1, &asked(&format!("{}:/srv:ro", dir.display())));
        assert_eq!(read_only.unwrap().1.text(), b"9p,ro:share1:/srv");
    }

    #[test]
    fn what_cannot_be_shared_is_an_error() {
        for (text, why) in [
            ("/nosuch", "No such file"),
            ("/", "name a path"),
            ("/etc/passwd", "not a directory"),
            ("/usr:/a\"b", "cannot be a mount point"),
        ] {
            let error = format!("{:#}", share(0, &asked(text)).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }
}
