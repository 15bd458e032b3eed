//! Archives with the same bytes whenever the files are the same.

use anyhow::{Result, ensure};
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;

/// Files by path, in the order of their names.
#[derive(Debug, Default, Clone)]
pub(super) struct Files(BTreeMap<String, (u32, Vec<u8>)>);

impl Files {
    pub(super) fn file(&mut self, path: &str, bytes: Vec<u8>) {
        self.0.insert(path.to_owned(), (0o644, bytes));
    }

    pub(super) fn program(&mut self, path: &str, bytes: Vec<u8>) {
        self.0.insert(path.to_owned(), (0o755, bytes));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(path, (_, bytes))| (path.as_str(), bytes.as_slice()))
    }

    pub(super) fn get(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path).map(|(_, bytes)| bytes.as_slice())
    }

    /// Both; the other's win.
    pub(super) fn merge(&self, other: &Files) -> Files {
        let mut all = self.clone();
        all.0.extend(other.0.clone());
        all
    }
}

/// The files below the folder `top`, or at the top if that is empty, and each directory before what is in it.
pub(super) fn tar(files: &Files, top: &str, time: u64) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut directories = Vec::new();
    for (path, (mode, bytes)) in &files.0 {
        let path = if top.is_empty() { path.clone() } else { format!("{top}/{path}") };
        for (at, _) in path.match_indices('/') {
            let directory = &path[..=at];
            if !directories.iter().any(|known| known == directory) {
                directories.push(directory.to_owned());
                append(&mut builder, header(tar::EntryType::Directory, 0o755, 0, time), directory, &[])?;
            }
        }
        append(&mut builder, header(tar::EntryType::Regular, *mode, bytes.len() as u64, time), &path, bytes)?;
    }
    Ok(builder.into_inner()?)
}

/// Appends an entry. The names in a Debian package begin with `./`, which the crate would remove.
fn append(
    builder: &mut tar::Builder<Vec<u8>>,
    mut header: tar::Header,
    path: &str,
    bytes: &[u8],
) -> Result<()> {
    if path.starts_with("./") {
        let name = &mut header.as_old_mut().name;
        ensure!(path.len() < name.len(), "{path} is too long");
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        return Ok(builder.append(&header, bytes)?);
    }
    Ok(builder.append_data(&mut header, path, bytes)?)
}

fn header(kind: tar::EntryType, mode: u32, size: u64, time: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    // Names as dpkg and tar write them.
    let _ = header.set_username("root").and_then(|()| header.set_groupname("root"));
    header
}

pub(super) fn tar_gz(files: &Files, top: &str, time: u64) -> Result<Vec<u8>> {
    gzip(&tar(files, top, time)?)
}

/// Compresses without a name or time in the header.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// An archive of ar(1), as dpkg reads it.
pub(super) fn ar(members: &[(&str, Vec<u8>)], time: u64) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let header = format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, "100644", bytes.len());
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(bytes);
        // Members begin at even offsets.
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        let mut files = Files::default();
        files.program("bin/tool", b"program".to_vec());
        files.file("a", b"text".to_vec());
        files
    }

    #[test]
    fn an_archive_is_sorted_and_has_only_the_given_time() {
        let bytes = tar(&files(), "top", 86_400).unwrap();
        assert_eq!(bytes, tar(&files(), "top", 86_400).unwrap());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (86_400, 0));
                (entry.path().unwrap().display().to_string(), header.mode().unwrap())
            })
            .collect();
        let expected = [("top/", 0o755), ("top/a", 0o644), ("top/bin/", 0o755), ("top/bin/tool", 0o755)];
        assert_eq!(entries, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn members_of_an_ar_archive_begin_at_even_offsets() {
        let bytes = ar(&[("odd", b"abc".to_vec()), ("even", b"de".to_vec())], 1);
        assert_eq!(bytes.len(), 8 + 60 + 4 + 60 + 2);
        assert_eq!(&bytes[8 + 58..8 + 64], b"`\nabc\n");
    }
}
