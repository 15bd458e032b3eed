//! Where entries are written until all of them are there: a directory in the target directory. Then each
//! entry of the root is renamed, so that nothing half-written is left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat, renameat_with, statat};
use rustix::io::Errno;
use tempfile::TempDir;

use super::target::Target;
use crate::report::name::shown;

/// An error of what is written. It hides what was read at that time, which is not to blame.
#[derive(Debug)]
pub(super) struct Unwritable(pub(super) String);

impl std::fmt::Display for Unwritable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unwritable {}

/// The error, reduced to what is written if that is its cause.
pub(super) fn cause(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Unwritable>() {
        Ok(unwritable) => unwritable.into(),
        Err(error) => error,
    }
}

/// The target directory, and the one in it that is written into.
#[derive(Debug)]
pub(super) struct Yard {
    path: PathBuf,
    directory: OwnedFd,
    /// `None` if entries go into the target directory itself.
    temporary: Option<TempDir>,
    /// Whether this run has created the target directory.
    created: bool,
}

/// The target directory, once everything is in it.
#[derive(Debug)]
pub(super) struct Moved {
    directory: OwnedFd,
    pub(super) created: bool,
    was_moved: bool,
}

impl Yard {
    /// Opens the target directory, or creates it. With `overwrite`, entries are written into it directly.
    pub(super) fn open(path: &Path, overwrite: bool) -> Result<Yard> {
        let shown = path.display();
        let created = match fs::create_dir(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error).with_context(|| format!("cannot create {shown}")),
        };
        let directory = open(path).with_context(|| format!("cannot open {shown}"))?;
        let mut yard = Yard { path: path.to_path_buf(), directory, temporary: None, created };
        if !overwrite {
            let temporary = tempfile::Builder::new().prefix(".repot-").tempdir_in(path);
            yard.temporary =
                Some(temporary.with_context(|| format!("cannot create a directory in {shown}"))?);
        }
        Ok(yard)
    }

    /// The directory to write into.
    pub(super) fn root(&self) -> Result<OwnedFd> {
        open(self.here()).with_context(|| format!("cannot open {}", self.here().display()))
    }

    /// That directory, for entries.
    pub(super) fn target(&self) -> Result<Target> {
        Target::new(self.root()?, self.path.display().to_string(), self.is_fresh())
    }

    /// The path of that directory.
    fn here(&self) -> &Path {
        self.temporary.as_ref().map_or(&self.path, TempDir::path)
    }

    /// The path of the target directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing in the directory to write into is older than this run.
    pub(super) fn is_fresh(&self) -> bool {
        self.temporary.is_some()
    }

    /// An error if an entry of the root would replace one that is there already.
    pub(super) fn reserve(&self, name: &[u8]) -> Result<()> {
        if self.temporary.is_none() || matches!(name, b"" | b"." | b"..") {
            return Ok(());
        }
        match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => {
                let (path, name) = (self.path.display(), shown(name));
                let cure = "choose an empty directory, or use --overwrite";
                Err(Unwritable(format!("{path}/{name} exists: {cure}")).into())
            }
            Err(_) => Ok(()),
        }
    }

    /// Gives everything its place in the target directory, or nothing.
    pub(super) fn commit(mut self) -> Result<Moved> {
        let directory = open(&self.path).with_context(|| format!("cannot open {}", self.path.display()))?;
        let created = std::mem::take(&mut self.created);
        let Some(temporary) = &self.temporary else {
            return Ok(Moved { directory, created, was_moved: false });
        };
        let from = open(temporary.path()).context("cannot open the temporary directory")?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&from)? {
            let name = entry.context("cannot read the temporary directory")?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                self.reserve(name.to_bytes())?;
                names.push(name);
            }
        }
        for (number, name) in names.iter().enumerate() {
            let moved = match renameat_with(&from, name, &directory, name, RenameFlags::NOREPLACE) {
                // The file system does not know the flag.
                Err(Errno::INVAL) => renameat(&from, name, &directory, name),
                moved => moved,
            };
            if let Err(errno) = moved {
                for back in &names[..number] {
                    // What cannot be moved back stays where it is: nothing of it is lost.
                    let _ = renameat(&directory, back, &from, back);
                }
                let shown = shown(name.to_bytes());
                return Err(
                    Unwritable(format!("cannot create {}/{shown}: {errno}", self.path.display())).into()
                );
            }
        }
        Ok(Moved { directory, created, was_moved: true })
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        drop(self.temporary.take());
        if self.created {
            // Fails if anybody else has put something into it.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

impl Moved {
    /// The new root of what was written into the root of the yard.
    pub(super) fn root(&self, parts: bool) -> Result<Option<OwnedFd>> {
        if parts || !self.was_moved {
            return Ok(None);
        }
        Ok(Some(self.directory.try_clone().context("cannot duplicate a descriptor")?))
    }
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
