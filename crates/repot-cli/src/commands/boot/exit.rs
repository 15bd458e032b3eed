//! The exit code of the program in the guest: the runner writes it as a byte to an I/O port, which QEMU
//! writes to a file.

use std::fs;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use super::Machine;

/// The kernel parameter that names the port: QEMU's debug console. Only PCs have it.
pub(super) const PARAMETER: Option<&str> = Some("run.exit=port:0xe9");

/// The file behind the port.
#[derive(Debug)]
pub(super) struct Port(Option<NamedTempFile>);

impl Port {
    pub(super) fn new(machine: &Machine) -> Result<Port> {
        if !machine.is_pc() {
            return Ok(Port(None));
        }
        let file = NamedTempFile::new().context("cannot create a temporary file for the exit code")?;
        Ok(Port(Some(file)))
    }

    /// QEMU's arguments for it.
    pub(super) fn arguments(&self) -> Vec<String> {
        let Port(Some(file)) = self else { return Vec::new() };
        let path = file.path().display().to_string().replace(',', ",,");
        let chardev = format!("file,id=repot-exit,path={path}");
        let device = "isa-debugcon,iobase=0xe9,chardev=repot-exit".to_string();
        vec!["-chardev".into(), chardev, "-device".into(), device]
    }

    /// The exit code that the guest has written.
    pub(super) fn code(&self) -> Option<u8> {
        fs::read(self.0.as_ref()?.path()).ok()?.last().copied()
    }
}
