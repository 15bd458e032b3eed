//! A root with nothing but BusyBox and its links.

use anyhow::Result;
use repot_harness::command;
use std::path::Path;
use std::process::Command;

/// Creates it as `folder/root`, without an init.
pub(crate) fn root(folder: &Path) -> Result<()> {
    let links = "mkdir -p root/bin root/etc root/dev root/proc root/sys; ln -s bin root/sbin; \
                 cp $(which busybox) root/bin/busybox; \
                 for name in $(busybox --list); do test -e root/bin/$name || ln -s busybox root/bin/$name; done; \
                 rm -f root/bin/init; mknod root/dev/console c 5 1; mknod root/dev/null c 1 3";
    command::read(Command::new("sh").current_dir(folder).args(["-ec", links])).map(drop)
}
