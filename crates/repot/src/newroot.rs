//! Makes the new root: a tmpfs, or a bind mount of the old file system. It is detached, so it needs no mount
//! point.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, chmod, chown, fstatfs, openat, stat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, open_tree,
};

use crate::error::{Call, Error, Fault, Step, name_of};
use crate::options::Owner;
use crate::plan::{Method, Plan, Tmpfs};
use crate::site::Site;

/// The new root, before it is attached.
#[derive(Debug)]
pub struct NewRoot<'s> {
    pub(crate) site: &'s Site,
    pub(crate) method: Method,
    /// The mount.
    pub(crate) mount: OwnedFd,
    /// Its root directory, open for reading. Once the mount is attached, through a detached clone of it, so
    /// that no mount on it is in the way: `..` leads to whatever is mounted on the parent directory.
    pub(crate) dir: OwnedFd,
    /// Options that the kernel refused and that were skipped.
    pub warnings: Vec<String>,
}

/// Makes the new root of the plan, whose method must not be [`Method::Stay`].
///
/// # Errors
/// The call that failed. Nothing has been changed.
pub fn make<'s>(site: &'s Site, plan: &Plan) -> Result<NewRoot<'s>, Error> {
    try_make(site, plan).map_err(|fault| fault.at(Step::NewRoot))
}

fn try_make<'s>(site: &'s Site, plan: &Plan) -> Result<NewRoot<'s>, Fault> {
    let mut warnings = Vec::new();
    let mount = if matches!(plan.method, Method::Move | Method::Payload) {
        tmpfs(&plan.tmpfs, &mut warnings)?
    } else {
        let mount = clone(&site.root)?;
        resize(&mount, &plan.bound, &mut warnings);
        mount
    };
    let dir = open(&mount)?;
    Ok(NewRoot { site, method: plan.method, mount, dir, warnings })
}

fn open(mount: &OwnedFd) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
    openat(mount, c".", flags, Mode::empty()).on("openat", b"/")
}

impl NewRoot<'_> {
    /// To be called once the mount is attached. Before, the kernel refuses to clone it (until 6.15).
    pub(crate) fn attached(&mut self) -> Result<(), Fault> {
        self.dir = open(&clone(&self.mount)?)?;
        Ok(())
    }
}

fn clone(mount: &OwnedFd) -> Result<OwnedFd, Fault> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(mount, "", flags).on("open_tree", b"/")
}

/// The new root after the switch, when it is `/`, without the mounts on it.
pub(crate) fn switched(site: &Site) -> Result<NewRoot<'_>, Fault> {
    let mount = open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC).on("open_tree", b"/")?;
    let dir = open(&clone(&mount)?)?;
    Ok(NewRoot { site, method: Method::Move, mount, dir, warnings: Vec::new() })
}

/// A file system context (fsopen(2), fspick(2)).
struct Context(OwnedFd);

impl Context {
    fn set(&self, key: &str, value: Option<&str>) -> Result<(), Errno> {
        match value {
            Some(value) => fsconfig_set_string(self.0.as_fd(), key, value),
            None => fsconfig_set_flag(self.0.as_fd(), key),
        }
    }

    /// Sets an option, or warns with the message of the kernel.
    fn try_set(&self, key: &str, value: Option<&str>, warnings: &mut Vec<String>) {
        if let Err(errno) = self.set(key, value) {
            let option = value.map_or_else(|| String::from(key), |value| format!("{key}={value}"));
            warnings.push(format!("newroot: {option} skipped: {}", self.messages(errno)));
        }
    }

    /// The kernel's messages about the last failed call. Each can be read once; errors begin with `e `,
    /// warnings with `w `.
    fn messages(&self, errno: Errno) -> String {
        let mut text = vec![0; 512];
        let mut messages = Vec::new();
        while let Ok(length @ 1..) = rustix::io::read(&self.0, &mut text[..]) {
            let line = text[..length].trim_ascii();
            let line = line.strip_prefix(b"e ").or(line.strip_prefix(b"w ")).unwrap_or(line);
            // The kernel puts names in single quotes, which need no escaping.
            messages.push(format!("{}", line.escape_ascii()).replace("\\'", "'"));
        }
        let (name, meaning) = name_of(errno);
        if messages.is_empty() {
            format!("{name} ({meaning})")
        } else {
            format!("{} ({name})", messages.join("; "))
        }
    }
}

fn tmpfs(options: &Tmpfs, warnings: &mut Vec<String>) -> Result<OwnedFd, Fault> {
    let context = configured(options, &options.more, warnings)?;
    let context = match fsconfig_create(context.0.as_fd()) {
        Err(errno) if !options.more.is_empty() => {
            // The kernel may refuse an option only here, without naming it. So all optional ones are skipped.
            warnings
                .push(format!("newroot: all optional tmpfs options skipped: {}", context.messages(errno)));
            let context = configured(options, &[], warnings)?;
            fsconfig_create(context.0.as_fd()).on("fsconfig", b"tmpfs")?;
            context
        }
        created => {
            created.on("fsconfig", b"tmpfs")?;
            context
        }
    };
    let mount = fsmount(context.0.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .on("fsmount", b"tmpfs")?;
    // Without CONFIG_TMPFS, the type `tmpfs` is a ramfs.
    if !is_tmpfs(mount.as_fd()).on("fstatfs", b"tmpfs")? {
        return Err(Errno::NODEV).on("fsmount", b"tmpfs");
    }
    Ok(mount)
}

fn configured(
    options: &Tmpfs,
    more: &[(String, Option<String>)],
    warnings: &mut Vec<String>,
) -> Result<Context, Fault> {
    let context = Context(fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).on("fsopen", b"tmpfs")?);
    context.set("source", Some("tmpfs")).on("fsconfig", b"source")?;
    context.set("mode", Some("0755")).on("fsconfig", b"mode")?;
    if let Some(size) = &options.size {
        context.set("size", Some(size)).on("fsconfig", b"size")?;
    }
    if let Some(inodes) = &options.nr_inodes {
        context.set("nr_inodes", Some(inodes)).on("fsconfig", b"nr_inodes")?;
    }
    for (key, value) in more {
        context.try_set(key, value.as_deref(), warnings);
    }
    Ok(context)
}

/// A bind mount has the limits of the old root. If that is a tmpfs, the configured limits are set on it; a
/// ramfs has none.
fn resize(mount: &OwnedFd, options: &Tmpfs, warnings: &mut Vec<String>) {
    let limited = options.size.is_some() || options.nr_inodes.is_some();
    if !limited || !is_tmpfs(mount.as_fd()).unwrap_or(false) {
        return;
    }
    let context =
        fspick(mount, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH).map(Context);
    let Ok(context) = context else {
        return warnings.push(String::from("newroot: fspick failed; size and nr_inodes not changed"));
    };
    for (key, value) in [("size", &options.size), ("nr_inodes", &options.nr_inodes)] {
        if let Some(value) = value {
            context.try_set(key, Some(value), warnings);
        }
    }
    if let Err(errno) = fsconfig_reconfigure(context.0.as_fd()) {
        warnings.push(format!("newroot: size and nr_inodes not changed: {}", context.messages(errno)));
    }
}

/// Gives the root directory, which is `/` now, the owner and the mode of the options. Returns a warning for
/// what the kernel refuses.
pub(crate) fn own(owner: Owner) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut check = |call, done: Result<(), Errno>| {
        if let Err(fault) = done.on(call, b"/") {
            warnings.push(format!("{}", fault.at(Step::NewRoot)));
        }
    };
    let Owner { mode, uid, gid } = owner;
    let status = (mode.is_some() || uid.is_some() || gid.is_some()).then(|| stat("/"));
    let Some(Ok(status)) = status else { return warnings };
    if uid.is_some() || gid.is_some() {
        check("chown", chown("/", uid.map(Uid::from_raw), gid.map(Gid::from_raw)));
    }
    // A change of the owner may clear bits of the mode.
    let mode = mode.unwrap_or(status.st_mode & 0o7777);
    check("chmod", chmod("/", Mode::from_raw_mode(mode)));
    warnings
}

#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
fn is_tmpfs(mount: BorrowedFd<'_>) -> Result<bool, Errno> {
    fstatfs(mount).map(|statfs| statfs.f_type as u64 & 0xffff_ffff == 0x0102_1994)
}
