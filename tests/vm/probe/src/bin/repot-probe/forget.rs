//! Overwrites the secrets of the root in place, so that only memory outside of it can still hold them.

use repot_probe::FORGOTTEN;
use std::fs::{File, read_dir};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// Overwrites the files in `/secret`, says so on the console, and never returns.
pub(crate) fn forget() {
    let told = match overwrite() {
        Ok(()) => FORGOTTEN.to_owned(),
        Err(error) => format!("probe: cannot forget: {error}"),
    };
    if let Ok(mut console) = File::options().write(true).open("/dev/console") {
        let _ = writeln!(console, "{told}");
    }
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

fn overwrite() -> io::Result<()> {
    let zeros = [0; 4096];
    for item in read_dir("/secret")? {
        let file = File::options().write(true).open(item?.path())?;
        let length = file.metadata()?.len();
        let mut at = 0;
        while at < length {
            let part = usize::try_from(length - at).unwrap_or(usize::MAX).min(zeros.len());
            file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
    }
    Ok(())
}
