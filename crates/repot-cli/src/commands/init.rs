//! `repot init`: writes the init that this tool would pack, for an image build of your own.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use crate::architecture;
use crate::cli::Init;
use crate::errors::usage;
use crate::init_binary;
use crate::output::Output;

/// Runs the command.
pub fn run(args: &Init) -> Result<()> {
    let target = match &args.arch {
        None => None,
        Some(name) => {
            let known = architecture::named(name).ok_or_else(|| {
                let names = architecture::ALL.map(|known| known.name).join(", ");
                usage(format!("--arch {name}: known architectures: {names}"))
            })?;
            Some(known.elf)
        }
    };
    let init = init_binary::alone(args.payload, args.run, target)?;
    if let Some(warning) = &init.warning {
        say!("warning: {warning}");
    }
    let mut output = Output::create(&args.output)?;
    output.write_all(&init.bytes)?;
    output.commit()?;
    // Not of a device or a pipe.
    if args.output.is_file() {
        let mode = Permissions::from_mode(0o755);
        fs::set_permissions(&args.output, mode)
            .with_context(|| format!("cannot make {} executable", args.output.display()))?;
    }
    Ok(())
}
