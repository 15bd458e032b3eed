//! Sets `cfg(loom)` for this package alone, so that a plain `cargo test` runs the models.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(loom)");
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rerun-if-changed=build.rs");
}
