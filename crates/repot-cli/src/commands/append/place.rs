//! Where the image lies to which a segment is added: it is the whole file, or a section of a unified kernel
//! image.

use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::New;
use crate::output::{Counted, Output};
use crate::survey::file::{ImageFile, UKI};
use crate::tree::Contents;
use crate::uki::Program;

/// The image.
pub(super) enum Place {
    /// The whole file.
    File(Contents),
    /// A section that begins at this byte of the program.
    Uki(Contents, u64, Program),
}

impl Place {
    /// That of a file; an error if nothing can be added to one of its format.
    pub(super) fn of(file: &ImageFile) -> Result<Place> {
        let (from, parts) = file.parts().context("the image can be read only once")?;
        let last = parts.image.last().context("the image is empty")?;
        let contents = Contents::Range(from.clone(), last.start, last.end - last.start);
        if parts.format.is_empty() {
            return Ok(Place::File(contents));
        }
        if parts.format != UKI {
            bail!(
                "{} is {}: append to the initramfs that goes into it, and build it again",
                file.name(),
                parts.format
            );
        }
        Ok(Place::Uki(contents, last.start, Program::open(from.clone(), file.name().to_string())?))
    }

    /// Writes a copy with the new segment. Returns its offset in the initramfs, and a warning.
    pub(super) fn write(self, new: New, output: Output) -> Result<(u64, Option<String>)> {
        let (Place::File(contents) | Place::Uki(contents, ..)) = &self;
        let (mut image, bytes) = (contents.open()?, contents.len());
        let Place::Uki(_, start, program) = &self else {
            let (offset, output) = new.write(&mut image, bytes, output)?;
            output.commit()?;
            return Ok((offset, None));
        };
        let (scratch, file) = output.scratch()?;
        let (offset, written) = new.write(&mut image, bytes, scratch)?;
        written.commit()?;
        let length = file.metadata().context("cannot stat a temporary file")?.len();
        let mut counted = Counted { out: output, bytes: 0 };
        let changed = Contents::Range(Arc::new(file), 0, length);
        let dropped = program.replacing(*start, &changed, &mut counted)?;
        counted.out.commit()?;
        let warning = "the signatures of the unified kernel image are void and were left out: sign it again (sbsign, ukify)";
        Ok((offset, dropped.then(|| warning.to_string())))
    }
}
