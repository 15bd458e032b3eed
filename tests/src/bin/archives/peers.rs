//! The programs that are compared with.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::compare::{self, Tree};

/// A program that extracts archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Bsdtar,
    GnuTar,
}

impl Peer {
    /// Those that may read an archive.
    pub(crate) fn all(archive: &Path) -> Vec<Peer> {
        let cpio = archive.to_string_lossy().contains("cpio");
        if cpio && !archive.to_string_lossy().ends_with(".ustar") {
            vec![Peer::Bsdtar]
        } else {
            vec![Peer::Bsdtar, Peer::GnuTar]
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Bsdtar => "bsdtar",
            Peer::GnuTar => "GNU tar",
        }
    }

    /// Extracts an archive into an empty directory and reads that. `None` if it cannot.
    pub(crate) fn extract(self, archive: &Path, into: &Path) -> Result<Option<Tree>> {
        let mut command = match self {
            Peer::Bsdtar => {
                let mut command = Command::new("bsdtar");
                command.args(["-x", "-p", "--numeric-owner", "--acls", "--xattrs", "-f"]);
                command
            }
            Peer::GnuTar => {
                let mut command = Command::new("tar");
                command.args([
                    "-x",
                    "-p",
                    "--numeric-owner",
                    "--acls",
                    "--xattrs",
                    "--xattrs-include=*",
                    "-f",
                ]);
                command
            }
        };
        command.arg(archive).arg("-C").arg(into).stdin(Stdio::null());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !status.with_context(|| format!("cannot run {}", self.name()))?.success() {
            return Ok(None);
        }
        compare::extracted(into).map(Some)
    }
}
