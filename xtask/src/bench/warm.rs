//! Memory that was in use a moment ago. In a virtual machine a page that is touched for the first time, or that was free for so long that
//! it was given back, is a fault of the host's, which would fall on whoever happens to get it.

use anyhow::{Result, ensure};

/// Touches so many bytes of free memory and gives them back.
pub(super) fn warm(bytes: u64) -> Result<()> {
    let mut memory: Vec<u8> = Vec::new();
    let size = usize::try_from(bytes)?;
    ensure!(memory.try_reserve_exact(size).is_ok(), "there are no {} MiB of memory to touch", bytes >> 20);
    for page in memory.spare_capacity_mut().chunks_mut(4096) {
        page[0].write(1);
    }
    // Or the writes would be seen to lead nowhere, and left out.
    std::hint::black_box(&mut memory);
    Ok(())
}
