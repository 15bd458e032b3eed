//! The architectures that repot is released for: their names, and the machines that QEMU emulates for them.

use std::env;

use repot::facts::program::Architecture;

/// What differs between architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its name in paths, such as `target/dist/NAME/init`.
    pub name: &'static str,
    /// Its ELF programs.
    pub elf: Architecture,
    /// QEMU, and its Debian package.
    pub qemu: (&'static str, &'static str),
    /// QEMU's machine.
    pub machine: &'static str,
    /// The CPU that is emulated.
    pub cpu: &'static str,
    /// The console of that machine, as the kernel names it.
    pub console: &'static str,
    /// More parameters for the kernel on that machine.
    pub parameters: &'static str,
    /// The sizes that a page can have. First that of most distributions' kernels.
    pub pages: &'static [u64],
    /// The 64-bit architecture whose kernels run its programs too.
    pub runs_on: Option<&'static str>,
}

const fn elf(number: u16, wide: bool, big: bool) -> Architecture {
    Architecture { number, wide, big }
}

/// All of them. Those that share a number with another differ in width or byte order.
pub const ALL: [Known; 8] = [
    Known {
        name: "x86_64",
        elf: elf(62, true, false),
        qemu: ("qemu-system-x86_64", "qemu-system-x86"),
        machine: "q35",
        cpu: "max",
        console: "ttyS0",
        parameters: "",
        pages: &[4 << 10],
        runs_on: None,
    },
    Known {
        name: "aarch64",
        elf: elf(183, true, false),
        qemu: ("qemu-system-aarch64", "qemu-system-arm"),
        machine: "virt",
        // By default, emulation spends most of its time on authenticating pointers.
        cpu: "max,pauth-impdef=on",
        console: "ttyAMA0",
        parameters: "",
        pages: &[4 << 10, 16 << 10, 64 << 10],
        runs_on: None,
    },
    Known {
        name: "i686",
        elf: elf(3, false, false),
        qemu: ("qemu-system-x86_64", "qemu-system-x86"),
        machine: "q35",
        cpu: "max",
        console: "ttyS0",
        parameters: "",
        pages: &[4 << 10],
        runs_on: Some("x86_64"),
    },
    Known {
        name: "armv7",
        elf: elf(40, false, false),
        qemu: ("qemu-system-arm", "qemu-system-arm"),
        // Kernels without LPAE reach no device above 4 GiB.
        machine: "virt,highmem=off",
        cpu: "cortex-a15",
        console: "ttyAMA0",
        parameters: "",
        pages: &[4 << 10],
        runs_on: Some("aarch64"),
    },
    Known {
        name: "riscv64",
        elf: elf(243, true, false),
        qemu: ("qemu-system-riscv64", "qemu-system-misc"),
        machine: "virt",
        cpu: "rv64",
        console: "ttyS0",
        parameters: "",
        pages: &[4 << 10],
        runs_on: None,
    },
    Known {
        name: "ppc64le",
        elf: elf(21, true, false),
        qemu: ("qemu-system-ppc64", "qemu-system-ppc"),
        machine: "pseries",
        cpu: "power10",
        console: "hvc0",
        parameters: "",
        pages: &[64 << 10, 4 << 10],
        runs_on: None,
    },
    Known {
        name: "s390x",
        elf: elf(22, true, true),
        qemu: ("qemu-system-s390x", "qemu-system-misc"),
        machine: "s390-ccw-virtio",
        cpu: "max",
        console: "ttysclp0",
        parameters: "",
        pages: &[4 << 10],
        runs_on: None,
    },
    Known {
        name: "loongarch64",
        elf: elf(258, true, false),
        qemu: ("qemu-system-loongarch64", "qemu-system-misc"),
        machine: "virt",
        cpu: "la464",
        console: "ttyS0",
        // Without firmware, the kernel looks for a keyboard controller and crashes.
        parameters: "initcall_blacklist=i8042_init",
        pages: &[16 << 10, 4 << 10, 64 << 10],
        runs_on: None,
    },
];

/// The architecture of this program, unless repot is not released for it.
#[must_use]
pub fn own() -> Option<&'static Known> {
    let name = match env::consts::ARCH {
        "x86" => "i686",
        "arm" => "armv7",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        other => other,
    };
    named(name)
}

/// The architecture with this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Known> {
    ALL.iter().find(|known| known.name == name)
}

/// The architecture of a program.
#[must_use]
pub fn of(program: Architecture) -> Option<&'static Known> {
    // x32 programs need a kernel of x86_64.
    let wide = program.wide || program.number == 62;
    ALL.iter().find(|known| known.elf == Architecture { wide, ..program })
}

/// The sizes of a page of the kernels that run a program, the usual one first; 4 KiB if that is unknown.
#[must_use]
pub fn pages(program: Option<Architecture>) -> &'static [u64] {
    program.and_then(of).map_or(&[4 << 10], |known| known.pages)
}

/// How messages call the architecture of a program.
#[must_use]
pub fn name(program: Architecture) -> String {
    of(program).map_or_else(|| machine_name(program.number), |known| known.name.to_string())
}

/// The architecture with this ELF machine number.
pub(crate) fn machine_name(number: u16) -> String {
    let name = match number {
        3 => "i386",
        8 => "mips",
        20 => "ppc",
        21 => "ppc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv",
        258 => "loongarch64",
        number => return format!("ELF machine {number}"),
    };
    name.to_string()
}

impl Known {
    /// Whether its kernels run programs of the other architecture.
    #[must_use]
    pub fn runs(&self, other: Architecture) -> bool {
        of(other).is_some_and(|other| other == self || other.runs_on == Some(self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_and_width_tell_apart_what_shares_a_number() {
        assert_eq!(of(elf(21, true, false)).map(|known| known.name), Some("ppc64le"));
        assert_eq!(of(elf(21, true, true)), None);
        assert_eq!(of(elf(243, false, false)), None);
        assert_eq!(of(elf(62, false, false)).map(|known| known.name), Some("x86_64"));
    }

    #[test]
    fn a_64_bit_kernel_runs_the_32_bit_programs_of_its_family() {
        let runs =
            |kernel: &str, program: Architecture| named(kernel).is_some_and(|known| known.runs(program));
        assert!(runs("x86_64", elf(3, false, false)) && !runs("i686", elf(62, true, false)));
        assert!(runs("aarch64", elf(40, false, false)) && !runs("aarch64", elf(62, true, false)));
        assert!(own().is_some());
    }
}
