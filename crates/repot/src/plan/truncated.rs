//! Decides whether the initramfs is truncated, and what to advise.

use alloc::format;
use alloc::string::{String, ToString};

use crate::display::Bytes;
use crate::facts::unpacked::Unpacking;
use crate::facts::{Capacity, Facts, RootFs};
use crate::marker;

/// What is missing, as a clause; `None` if nothing is known to be missing.
pub(super) fn missing(facts: &Facts) -> Option<String> {
    if let Some(shortage) = shortage(facts) {
        return Some(shortage);
    }
    let Unpacking { complaints, begun, end } = &facts.unpacking;
    let mut missing = marker::missing(*begun, end.as_ref())?.to_string();
    for complaint in complaints {
        missing.push_str(&format!("; the kernel logged \"{complaint}\""));
    }
    Some(missing)
}

/// A shortage of space or inodes while the kernel unpacked.
fn shortage(facts: &Facts) -> Option<String> {
    if let Some(complaint) =
        facts.unpacking.complaints.iter().find(|complaint| complaint.contains("write error"))
    {
        return Some(format!("the kernel logged \"{complaint}\""));
    }
    let Capacity { size, free, inodes, free_inodes } = facts.capacity;
    if facts.rootfs == RootFs::Tmpfs && size > 0 && free == 0 {
        return Some(format!("the root is full: all {} are used", Bytes(size)));
    }
    if facts.rootfs == RootFs::Tmpfs && inodes > 0 && free_inodes == 0 {
        return Some(format!("the root is full: all {inodes} inodes are used"));
    }
    None
}

/// The cures, for the message.
pub(super) fn cures(facts: &Facts) -> String {
    let memory = Bytes(facts.memory.total);
    let image = if shortage(facts).is_none() { "a complete image, if this one was truncated; " } else { "" };
    let (limit, options) = if facts.rootfs == RootFs::Tmpfs {
        let Capacity { size, inodes, .. } = facts.capacity;
        (
            format!(", and the root is a tmpfs limited to {} and {inodes} inodes", Bytes(size)),
            "; rootfstype=ramfs on the kernel command line, which has no limit; or \
             initramfs_options=size=90%,nr_inodes=0 (Linux 6.18, and stable kernels since October 2025)",
        )
    } else {
        (String::new(), "")
    };
    format!(
        "MemTotal is {memory}{limit}. To fix it: {image}more memory{options}. truncated=continue boots what was unpacked"
    )
}
