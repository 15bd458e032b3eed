//! What a survey remembers of the programs of an image.

use std::io::Read;

use anyhow::Result;
use repot::facts::program::{Architecture, Program};
use repot::options::Options;

use super::{READ_WHOLE, Survey, read_up_to};
use crate::init_binary;
use crate::newc::Header;
use crate::programs;
use crate::tree::Id;

/// Bytes of a program that are read into memory: enough for the headers of most.
const HEAD: u64 = 4096;
/// Bytes of the ELF header.
const ELF_HEADER: usize = 64;
/// Bytes of an `/init` that can be kept.
pub(crate) const KEPT: u64 = 512 << 20;

impl Survey {
    /// The architecture of the image's programs: of the one that runs in the end, or of any.
    #[must_use]
    pub fn architecture(&self) -> Option<Architecture> {
        programs::architecture_of(self.tree(), &|id| self.program(id), self.repot(), None)
    }

    /// What the image holds and `/init`, which is repot, cannot use.
    #[must_use]
    pub fn missing_features(&self) -> Vec<String> {
        let Some(features) = self.features() else { return Vec::new() };
        let chain = Options::read(Some(self.config().as_bytes()), &[]).chain.is_some();
        let held = [
            (!self.payload.is_empty(), init_binary::PAYLOAD, "a payload, and /init cannot unpack it"),
            (chain, init_binary::CHAIN, "chain= in /etc/repot.conf, and /init does not know it"),
            (
                self.manifests.several(),
                init_binary::MANIFESTS,
                "attributes in .repot-xattrs-*, and /init does not read them",
            ),
        ];
        let missing = held.iter().filter(|(holds, feature, _)| *holds && !features.contains(feature));
        missing
            .map(|(.., what)| format!("the image has {what}: use the init of this repot (repot append)"))
            .collect()
    }

    pub(super) fn program_file(&mut self, id: Id, header: &Header, data: &mut dyn Read) -> Result<()> {
        let size = u64::from(header.filesize);
        let keep = self.keep.as_ref() == Some(&header.name);
        let mut bytes = read_up_to(data, if keep { KEPT } else { HEAD })?;
        let mut beyond = false;
        let mut program = programs::of_head(&bytes, &mut beyond);
        if beyond && size > bytes.len() as u64 {
            program = if size <= READ_WHOLE {
                bytes.append(&mut read_up_to(data, READ_WHOLE)?);
                programs::of_bytes(&bytes)
            } else {
                // The interpreter of so large a program is not tested.
                programs::of_bytes(&bytes[..ELF_HEADER])
            };
        }
        let fixed = matches!(program, Ok(Program { interpreter: None, .. })) && size <= READ_WHOLE;
        if fixed {
            bytes.append(&mut read_up_to(data, READ_WHOLE)?);
        }
        if fixed && init_binary::is_repot(&bytes) {
            self.repots.insert(id, init_binary::features(&bytes));
        } else {
            // The member may overwrite a file that was repot.
            self.repots.remove(&id);
        }
        self.programs.insert(id, program);
        if keep {
            self.kept = (bytes.len() as u64 == size).then_some(bytes);
        }
        Ok(())
    }
}
