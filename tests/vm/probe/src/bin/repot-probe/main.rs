//! The guest's `/sbin/init`: it inspects its machine, reports the result as JSON over the second serial port,
//! and powers off.
//!
//! It needs nothing: no mounts, no `/dev`, no open descriptor. What it mounts itself (procfs, a tmpfs with
//! one device node) stays detached, so the mount list that it reports is unchanged. As `/init` of an image
//! with steps ([`repot_probe::steps`]), it performs them first, and the last one executes the init under
//! test.
#![no_main]

mod forget;
mod look;
mod outside;
mod perform;
mod sys;
mod trial;

use repot_probe::account::Line;
use std::ffi::CString;

fn run(argv: &[CString]) {
    if argv.get(1).is_some_and(|word| word.as_c_str() == c"--helper") {
        let milliseconds = argv.get(2).and_then(|word| word.to_str().ok()?.parse().ok()).unwrap_or(0);
        // The crashed process waits until its memory has been read.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        return std::thread::sleep(std::time::Duration::from_millis(milliseconds));
    }
    if std::path::Path::new("/").join(repot_probe::FORGET).exists() {
        return forget::forget();
    }
    let first = argv.first().is_some_and(|name| name.as_c_str() == c"/init");
    let result = match first.then(perform::steps).flatten() {
        Some(Ok(steps)) => perform::all(&steps, argv),
        Some(Err(error)) => Err(error),
        None => look::account(argv).and_then(|seen| outside::say(&Line::After(Box::new(seen)))),
    };
    if let Err(what) = result {
        // If even this fails, the host finds no report and shows the console.
        let _ = outside::say(&Line::Broken(what));
    }
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
}
