//! Re-home a Linux system that lives in its initramfs.
#![no_std]
