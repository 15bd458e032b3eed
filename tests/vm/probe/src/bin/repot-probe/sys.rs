//! The entry point. That of std would abort in a root without `/dev/console` and `/dev/null`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};

#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: the kernel passes `argc` strings, which live as long as the process.
    let argv: Vec<CString> =
        (0..count).map(|at| unsafe { CStr::from_ptr(*argv.add(at)) }.to_owned()).collect();
    crate::run(&argv);
    1
}
