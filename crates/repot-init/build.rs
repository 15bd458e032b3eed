//! Decides whether the init is without `std`, and leaves the unwind tables out of it. A panic in it never
//! unwinds (`sys.rs`), but the prebuilt `core`, `alloc` and C library bring their tables along.

use std::env::var;
use std::path::Path;

fn main() {
    // What is released is compiled for size (the profile `init`), and alone: it is without `std`, and defines
    // its own panic handler. Other builds may share their dependencies with programs that have `std`, so they
    // have it too.
    println!("cargo::rustc-check-cfg=cfg(freestanding)");
    if var("OPT_LEVEL").is_ok_and(|level| level == "z") {
        println!("cargo::rustc-cfg=freestanding");
    }
    println!("cargo:rerun-if-changed=no-unwind.ld");
    // Only lld, which `.cargo/config.toml` names for musl, inserts into its own layout without complaint.
    let is_lld = var("RUSTC_LINKER").is_ok_and(|linker| linker.ends_with("rust-lld"));
    if let (true, Ok(package)) = (is_lld, var("CARGO_MANIFEST_DIR")) {
        let script = Path::new(&package).join("no-unwind.ld");
        println!("cargo:rustc-link-arg-bins=-T{}", script.display());
        // 500 addresses to relocate take 200 bytes instead of 12,000. The C library relocates them since musl
        // 1.2.4.
        println!("cargo:rustc-link-arg-bins=--pack-dyn-relocs=relr");
    }
}
