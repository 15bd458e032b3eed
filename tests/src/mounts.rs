//! Mount tables that can be compared before and after a move.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::process::Pid;

/// One line of mountinfo.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// The ID, valid within one table.
    pub id: u64,
    /// The ID of the parent mount.
    pub parent: u64,
    /// The other fields.
    pub what: What,
}

/// The properties of a mount that must not change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct What {
    /// Device number, which identifies the superblock.
    pub device: String,
    /// The directory or file of the file system that is mounted.
    pub root: String,
    /// Options of the mount, such as `rw` and `nosuid`.
    pub options: String,
    /// File system type.
    pub fstype: String,
    /// Source.
    pub source: String,
    /// Options of the superblock.
    pub super_options: String,
    /// Whether it is shared, without the number of the peer group.
    pub shared: bool,
    /// The peer groups that it shares mounts with and receives mounts from; 0 for none.
    pub groups: (u64, u64),
    /// Whether it cannot be bind-mounted.
    pub unbindable: bool,
}

/// Mounts by mount point in the kernel's notation, each byte one character. Each value is a stack, lowest
/// mount first. The root is `/`.
pub type Table = BTreeMap<String, Vec<Mount>>;

/// The table of process `pid`.
///
/// # Errors
/// If the process is gone.
pub fn table_of(pid: Pid) -> io::Result<Table> {
    read(&format!("/proc/{}/mountinfo", pid.as_raw_pid()))
}

/// Reads a table from a file in `/proc`.
///
/// # Errors
/// If the file is missing.
pub fn read(path: &str) -> io::Result<Table> {
    let text: String = std::fs::read(path)?.into_iter().map(char::from).collect();
    Ok(parse(&text))
}

/// The path of a mount point in a table: space, tab, newline, backslash and `#` are escaped in octal.
///
/// # Panics
/// If the escape is invalid.
#[must_use]
pub fn path(point: &str) -> PathBuf {
    let mut bytes = vec![];
    let mut rest = point.chars().map(|char| u8::try_from(char).expect("a byte"));
    while let Some(byte) = rest.next() {
        if byte == b'\\' {
            let digits = rest.by_ref().take(3);
            bytes.push(digits.fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
        } else {
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes).into()
}

/// Parses the text of a table.
///
/// # Panics
/// If the text is not a mount table.
#[must_use]
pub fn parse(mountinfo: &str) -> Table {
    let mut table = Table::new();
    for line in mountinfo.lines() {
        let (left, right) = line.split_once(" - ").expect("a separator");
        let left: Vec<_> = left.split(' ').collect();
        let right: Vec<_> = right.split(' ').collect();
        let tagged = |tag: &str| {
            let id = left[6..].iter().find_map(|field| field.strip_prefix(tag));
            id.map_or(0, |id| id.parse().expect("a peer group"))
        };
        let what = What {
            device: left[2].to_owned(),
            root: left[3].to_owned(),
            options: left[5].to_owned(),
            fstype: right[0].to_owned(),
            source: right[1].to_owned(),
            super_options: right[2].to_owned(),
            shared: tagged("shared:") != 0,
            groups: (tagged("shared:"), tagged("master:")),
            unbindable: left[6..].contains(&"unbindable"),
        };
        let number = |text: &str| text.parse().expect("a number");
        let mount = Mount { id: number(left[0]), parent: number(left[1]), what };
        table.entry(left[4].to_owned()).or_default().push(mount);
    }
    for stack in table.values_mut() {
        order(stack);
    }
    table
}

/// Sorts the mounts at one mount point: the parent of each is the one below.
fn order(stack: &mut Vec<Mount>) {
    let ids: Vec<_> = stack.iter().map(|mount| mount.id).collect();
    let mut ordered = Vec::new();
    // The parent of the lowest is elsewhere, or, for the root, the mount itself.
    let lowest = stack.iter().position(|mount| mount.parent == mount.id || !ids.contains(&mount.parent));
    let mut next = lowest;
    while let Some(at) = next {
        let mount = stack.remove(at);
        next = stack.iter().position(|above| above.parent == mount.id);
        ordered.push(mount);
    }
    ordered.append(stack);
    *stack = ordered;
}

/// The topmost mount at the directory `top` and the mounts below it, with paths relative to `top`.
///
/// # Panics
/// If nothing is mounted at `top`.
#[must_use]
pub fn below(table: &Table, top: &str) -> Table {
    let mut inside = vec![table[top].last().expect("a stack has a mount").id];
    let all: Vec<_> = table.values().flatten().collect();
    let mut seen = 0;
    while let Some(&parent) = inside.get(seen) {
        inside.extend(all.iter().filter(|mount| mount.parent == parent).map(|mount| mount.id));
        seen += 1;
    }
    let ours =
        |stack: &Vec<Mount>| stack.iter().filter(|mount| inside.contains(&mount.id)).cloned().collect();
    let mut below = Table::new();
    for (path, stack) in table {
        let Some(rest) = path.strip_prefix(top) else { continue };
        let stack: Vec<_> = ours(stack);
        if !stack.is_empty() {
            below.insert(if rest.is_empty() { "/" } else { rest }.to_owned(), stack);
        }
    }
    below
}

/// All mounts below the root, as they must be after a move. Bind mounts of the root have another device then,
/// and peer groups other numbers.
#[must_use]
pub fn carried(table: &Table) -> BTreeMap<String, Vec<What>> {
    let root = &table["/"][0].what;
    let mut groups: Vec<u64> = Vec::new();
    let mut numbered = |group: u64| {
        let known = groups.iter().position(|other| *other == group);
        let place = known.unwrap_or_else(|| {
            groups.push(group);
            groups.len() - 1
        });
        u64::try_from(place).expect("few groups") + 1
    };
    let mut alike = |mount: &Mount| {
        let mut what = mount.what.clone();
        if what.device == root.device {
            for field in [&mut what.device, &mut what.fstype, &mut what.source, &mut what.super_options] {
                "the root's".clone_into(field);
            }
        }
        let (group, master) = what.groups;
        what.groups =
            (if group == 0 { 0 } else { numbered(group) }, if master == 0 { 0 } else { numbered(master) });
        what
    };
    let below_root = table.iter().filter(|(path, _)| *path != "/");
    below_root.map(|(path, stack)| (path.clone(), stack.iter().map(&mut alike).collect())).collect()
}
