//! The helper in place of the real init: a static program without Rust's runtime, which would change signal
//! dispositions.
//!
//! It writes "ready" to the abstract socket that its environment names, so it needs no descriptor, and stays
//! until the other end hangs up. Called as `parent`, it first runs its arguments as a child and reports how
//! that ended.
#![no_main]

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::Command;

#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let args: Vec<&OsStr> = (0..usize::try_from(argc).unwrap_or(0))
        // SAFETY: the kernel passes `argc` strings.
        .map(|index| OsStr::from_bytes(unsafe { CStr::from_ptr(*argv.add(index)) }.to_bytes()))
        .collect();
    match report(&args) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("helper: {error}");
            77
        }
    }
}

fn report(args: &[&OsStr]) -> std::io::Result<()> {
    let name = std::env::var("REPOT_TEST_SOCKET").map_err(std::io::Error::other)?;
    let mut line = "ready\n".to_owned();
    if let [name, program, rest @ ..] = args
        && *name == "parent"
    {
        line = format!("{}\n", Command::new(program).args(rest).status()?);
    }
    let mut harness = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    harness.write_all(line.as_bytes())?;
    harness.read_to_end(&mut Vec::new())?;
    Ok(())
}
