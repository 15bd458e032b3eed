//! The options of `pack` for a unified kernel image.

use std::path::PathBuf;

use clap::Args;

/// The parts of a unified kernel image beside the initramfs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for a unified kernel image")]
pub struct Uki {
    /// Write a unified kernel image (UKI), which UEFI starts: kernel, command line and initramfs in one file
    #[arg(long, requires = "kernel")]
    pub uki: bool,
    /// Its kernel
    #[arg(long, value_name = "FILE", requires = "uki")]
    pub kernel: Option<PathBuf>,
    /// Its kernel command line
    #[arg(long, value_name = "PARAMETERS", requires = "uki", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// systemd's stub [default: that of the kernel's architecture in /usr/lib/systemd/boot/efi]
    #[arg(long, value_name = "FILE", requires = "uki")]
    pub stub: Option<PathBuf>,
}
