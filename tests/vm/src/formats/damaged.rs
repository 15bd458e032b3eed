//! Members that no program writes: damaged headers, wrong checksums, names without an end or without a
//! length.

use super::cases::{Case, Expect, FILE, case, second, second_of};
use super::image::{Member, Parts, named, plain};

use Expect::{All, Each};

const PANICS: &str = "panics";
const FOUND: &str = "`second` is a file of 6 bytes";
const LOST: &str = "no `second`";
/// One byte more than a name may have with its NUL (`PATH_MAX`).
const TOO_LONG: usize = 4097;

/// Fields of a header, by their number.
const MTIME: usize = 5;
const SUM: usize = 12;

pub(super) const CASES: &[Case] = &[
    case(
        None,
        |parts| Ok(before_second(parts, &[0x58; 112])),
        &[second_of("something between two members that is no header", All(LOST), "neither a cpio archive")],
    ),
    case(
        Some("7"),
        |parts| {
            let mut member = member("broken", 7, FILE, b"");
            member[field(MTIME)].copy_from_slice(b"0000000g");
            Ok(before_second(parts, &member))
        },
        &[second_of(
            "a number in a header that is not hexadecimal",
            Each([FOUND, FOUND, FOUND, LOST]),
            "is not a hexadecimal number",
        )],
    ),
    case(
        None,
        |parts| {
            let mut image = named(&before_second(parts, &member("broken", 7, FILE, b"data")), b"070702");
            if let Some(at) = image.windows(6).rposition(|name| name == b"broken") {
                image[at - 110..][field(SUM)].copy_from_slice(b"00000001");
            }
            Ok(image)
        },
        &[second_of(
            "a wrong checksum (070702)",
            Each([PANICS, LOST, LOST, LOST]),
            "wrong checksum of the data",
        )],
    ),
    case(
        Some("6.1"),
        |parts| Ok(before_second(parts, &member("", 0, FILE, b"data"))),
        &[second_of("a member without a name", All(FOUND), "it has no name")],
    ),
    case(
        None,
        |parts| {
            let name = "n".repeat(TOO_LONG - 1);
            Ok(before_second(parts, &member(&name, TOO_LONG, FILE, b"data")))
        },
        &[second_of("a name longer than PATH_MAX", All(FOUND), "its name is longer than PATH_MAX")],
    ),
    case(
        None,
        |parts| Ok(before_second(parts, &member("no-end!", 7, FILE, b"data"))),
        &[second_of(
            "a name without its NUL",
            Each([FOUND, LOST, LOST, LOST]),
            "a name has no NUL at its end",
        )],
    ),
];

/// The base, a member, and a second archive.
fn before_second(parts: &Parts, member: &[u8]) -> Vec<u8> {
    let base = plain(&parts.members(&[Member::new("first", FILE, b"first")]));
    [&base[..], member, &second()].concat()
}

/// The digits of a field.
fn field(number: usize) -> std::ops::Range<usize> {
    6 + 8 * number..14 + 8 * number
}

/// A member whose name has `length` bytes, the NUL included if there is room.
fn member(name: &str, length: usize, mode: u32, data: &[u8]) -> Vec<u8> {
    let fields = [0, mode as usize, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, length, 0];
    let mut bytes = b"070701".to_vec();
    bytes.extend(fields.iter().flat_map(|field| format!("{field:08X}").into_bytes()));
    let mut name = name.as_bytes().to_vec();
    name.resize(length, 0);
    for part in [&name[..], data] {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}
