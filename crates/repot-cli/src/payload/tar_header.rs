//! Headers of tar entries: ustar, with PAX records in front for what does not fit.

use repot::payload::archive::pax;
use tar::{EntryType, Header};

use crate::tree::{Inode, Kind};

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;

/// Bytes of each of the two name fields of ustar. The prefix field is not used.
const NAME: usize = 100;
/// Maximum owner: seven octal digits.
const OWNER: u32 = 0o7_777_777;
/// Maximum size: eleven octal digits.
const SIZE: u64 = 0o77_777_777_777;

/// The header of an entry. For a hard link, `link` is the path of the first name.
pub(super) fn header(path: &[u8], inode: &Inode, link: Option<&[u8]>) -> Vec<u8> {
    let mut records = Vec::new();
    let mut header = Header::new_ustar();
    let attributes = &inode.attributes;
    let name = match (&inode.kind, path) {
        (Kind::Directory(_), b"") => b"./".to_vec(),
        (Kind::Directory(_), path) => [path, b"/"].concat(),
        (_, path) => path.to_vec(),
    };
    let (kind, size, target, device) = match (&inode.kind, link) {
        (_, Some(link)) => (EntryType::Link, 0, link, (0, 0)),
        (Kind::Directory(_), None) => (EntryType::Directory, 0, &b""[..], (0, 0)),
        (Kind::File(contents), None) => (EntryType::Regular, contents.len(), &b""[..], (0, 0)),
        (Kind::Symlink(target), None) => (EntryType::Symlink, 0, &**target, (0, 0)),
        (Kind::Character(major, minor), None) => (EntryType::Char, 0, &b""[..], (*major, *minor)),
        (Kind::Block(major, minor), None) => (EntryType::Block, 0, &b""[..], (*major, *minor)),
        (Kind::Fifo, None) => (EntryType::Fifo, 0, &b""[..], (0, 0)),
        (Kind::Socket, None) => {
            pax::write(&mut records, pax::FILETYPE, pax::SOCKET);
            (EntryType::Fifo, 0, &b""[..], (0, 0))
        }
    };
    let fields = header.as_old_mut();
    if !field(&mut fields.name, &name) {
        pax::write(&mut records, b"path", &name);
    }
    if !field(&mut fields.linkname, target) {
        pax::write(&mut records, b"linkpath", target);
    }
    header.set_entry_type(kind);
    header.set_mode(attributes.archived_permissions());
    for (id, key) in [(attributes.uid, &b"uid"[..]), (attributes.gid, b"gid")] {
        let held = if id > OWNER { 0 } else { u64::from(id) };
        if key == b"uid" {
            header.set_uid(held)
        } else {
            header.set_gid(held)
        }
        if id > OWNER {
            pax::write(&mut records, key, id.to_string().as_bytes());
        }
    }
    header.set_size(if size > SIZE { 0 } else { size });
    if size > SIZE {
        pax::write(&mut records, b"size", size.to_string().as_bytes());
    }
    header.set_mtime(attributes.mtime.into());
    if attributes.nanoseconds > 0 {
        let time = format!("{}.{:09}", attributes.mtime, attributes.nanoseconds);
        pax::write(&mut records, b"mtime", time.as_bytes());
    }
    // This cannot fail: a ustar header has both fields.
    let _ = header.set_device_major(device.0).and(header.set_device_minor(device.1));
    if link.is_none() {
        for (name, value) in &attributes.xattrs {
            pax::write(&mut records, &[pax::XATTR, &pax::encode(name)].concat(), value);
        }
    }
    header.set_cksum();
    let mut bytes = Vec::new();
    if !records.is_empty() {
        let mut before = Header::new_ustar();
        field(&mut before.as_old_mut().name, b"PaxHeaders");
        before.set_entry_type(EntryType::XHeader);
        before.set_mode(0o644);
        before.set_size(records.len() as u64);
        before.set_mtime(0);
        before.set_uid(0);
        before.set_gid(0);
        let _ = before.set_device_major(0).and(before.set_device_minor(0));
        before.set_cksum();
        bytes.extend_from_slice(before.as_bytes());
        bytes.append(&mut records);
        pad(&mut bytes);
    }
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

/// Appends zeros up to a whole block.
pub(super) fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
}

/// Fills a field if the value fits, and returns whether it does.
fn field(field: &mut [u8; NAME], value: &[u8]) -> bool {
    let fits = value.len() <= field.len();
    if fits {
        field[..value.len()].copy_from_slice(value);
    }
    fits
}
