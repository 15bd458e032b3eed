//! The header of a swap area, as mkswap(8) writes it (`union swap_header`, include/linux/swap.h).

use alloc::vec;
use alloc::vec::Vec;

/// What the volume is called.
const LABEL: &[u8] = b"repot";

/// The first page of a swap area of `pages` pages. Numbers have the byte order of the machine.
pub(super) fn header(page: u64, pages: u64, uuid: &[u8; 16]) -> Vec<u8> {
    let page = usize::try_from(page).unwrap_or(4096).max(4096);
    let mut header = vec![0; page];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    let last = u32::try_from(pages.saturating_sub(1)).unwrap_or(u32::MAX);
    // The first 1024 bytes are for boot loaders.
    put(1024, &1u32.to_ne_bytes());
    put(1028, &last.to_ne_bytes());
    // No bad pages, at 1032.
    put(1036, uuid);
    put(1052, LABEL);
    put(page - 10, b"SWAPSPACE2");
    header
}

/// A UUID from its text; zeros, which means none, if that is malformed.
pub(super) fn uuid(text: &[u8]) -> [u8; 16] {
    let digits = text.iter().filter_map(|byte| char::from(*byte).to_digit(16));
    let mut uuid = [0; 16];
    for (at, digit) in digits.take(32).enumerate() {
        uuid[at / 2] = uuid[at / 2] << 4 | u8::try_from(digit).unwrap_or(0);
    }
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Compares with what util-linux writes, for the page size of this machine.
    #[test]
    fn the_header_is_the_one_of_mkswap() {
        let text = "12345678-9abc-4def-8123-456789abcdef";
        let path = std::env::temp_dir().join(std::format!("repot-mkswap-{}", std::process::id()));
        let page = crate::sys::page_size();
        std::fs::File::create(&path).unwrap().set_len(1000 * page).unwrap();
        let made = Command::new("/sbin/mkswap").args(["-L", "repot", "-U", text]).arg(&path).output();
        let found = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        match made {
            // Machines without util-linux cannot compare.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            made => assert!(made.unwrap().status.success()),
        }
        let header = header(page, 1000, &uuid(text.as_bytes()));
        assert!(found[..header.len()] == header[..], "differs from mkswap");
    }

    #[test]
    fn a_malformed_uuid_is_none() {
        assert_eq!(uuid(b""), [0; 16]);
    }
}
