//! The guest's `/sbin/init`: looks at the machine it woke up in, says what it saw as JSON on the second
//! serial port, and powers off.
//!
//! It needs nothing of the machine: no mounts, no `/dev`, no open descriptor. What it has to mount to
//! look (procfs, a tmpfs with one device node) stays detached, so the mount list it reports is the one
//! it found. As `/init` of an image with a file of steps ([`repot_probe::steps`]) it performs those first,
//! and the last of them executes the init under test.
#![no_main]

mod look;
mod outside;
mod perform;
mod sampler;
mod sys;
mod trial;

use repot_probe::account::Line;
use std::ffi::CString;

fn run(argv: &[CString]) {
    if argv.get(1).is_some_and(|word| word.as_c_str() == c"--helper") {
        let milliseconds = argv.get(2).and_then(|word| word.to_str().ok()?.parse().ok()).unwrap_or(0);
        // Whoever crashed waits until its memory has been read.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        return std::thread::sleep(std::time::Duration::from_millis(milliseconds));
    }
    let first = argv.first().is_some_and(|name| name.as_c_str() == c"/init");
    let result = match first.then(perform::steps).flatten() {
        Some(Ok(steps)) => perform::all(&steps, argv),
        Some(Err(error)) => Err(error),
        None => look::account(argv).and_then(|seen| outside::say(&Line::After(Box::new(seen)))),
    };
    if let Err(what) = result {
        // When even this cannot be said, the host finds no account and shows the console.
        let _ = outside::say(&Line::Broken(what));
    }
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
}
