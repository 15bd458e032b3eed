//! The architectures that repot is released for, and what differs between them: names, the Rust target, the C
//! compiler, and the machine that QEMU emulates.

use crate::debian::Tool;

/// The table of the tool, which has most of it: read from its source, because the tool takes a minute to
/// build.
#[path = "../../../crates/repot-cli/src/architecture.rs"]
#[allow(dead_code, unreachable_pub)]
mod architecture;

use architecture::Known;

/// An architecture the init is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit PCs.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
    /// 32-bit PCs.
    I686,
    /// 32-bit Arm with hardware floating point.
    Armv7,
    /// 64-bit RISC-V.
    Riscv64,
    /// 64-bit POWER, little-endian.
    Ppc64le,
    /// 64-bit IBM Z, the one that is big-endian.
    S390x,
    /// 64-bit LoongArch.
    Loongarch64,
}

/// How the C library gets into the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    /// The one that comes with the Rust target.
    Musl,
    /// Debian's musl. Rust's own libraries are compiled too, from the component `rust-src`.
    Built,
    /// Debian's, linked statically by the named compiler: Rust has no library for musl there.
    Glibc,
}

/// The machine that QEMU emulates for a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Platform {
    /// QEMU and its Debian package.
    pub qemu: Tool,
    /// The machine, with its options.
    pub machine: &'static str,
    /// The CPU, with its options.
    pub cpu: &'static str,
    /// How many CPUs the kernel boots with.
    pub cpus: u32,
    /// The console, as `console=` names it.
    pub console: &'static str,
    /// More parameters for the kernel.
    pub parameters: &'static str,
    /// Whether it has a second serial port, as `/dev/ttyS1`. Others send the report over the console.
    pub second_port: bool,
}

impl Arch {
    /// All of them.
    pub const ALL: [Arch; 8] = [
        Arch::X86_64,
        Arch::Aarch64,
        Arch::I686,
        Arch::Armv7,
        Arch::Riscv64,
        Arch::Ppc64le,
        Arch::S390x,
        Arch::Loongarch64,
    ];

    /// What the tool knows of it. The table has the same order, as the tests below check.
    fn known(self) -> &'static Known {
        &architecture::ALL[self as usize]
    }

    /// Its name in `target/dist` and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.known().name
    }

    /// The architecture with this [name](Arch::name).
    #[must_use]
    pub fn named(name: &str) -> Option<Arch> {
        Arch::ALL.into_iter().find(|arch| arch.name() == name)
    }

    /// Its name to Debian.
    #[must_use]
    pub fn debian(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Aarch64 => "arm64",
            Arch::I686 => "i386",
            Arch::Armv7 => "armhf",
            Arch::Riscv64 => "riscv64",
            Arch::Ppc64le => "ppc64el",
            Arch::S390x => "s390x",
            Arch::Loongarch64 => "loong64",
        }
    }

    /// Its Rust targets, the best one first, and where their C library comes from. Without the library of the
    /// first at hand, the second takes its place.
    pub(crate) fn targets(self) -> &'static [(&'static str, Library)] {
        use Library::{Built, Glibc, Musl};
        match self {
            Arch::X86_64 => &[("x86_64-unknown-linux-musl", Musl)],
            Arch::Aarch64 => &[("aarch64-unknown-linux-musl", Musl)],
            Arch::I686 => &[("i686-unknown-linux-musl", Musl)],
            Arch::Armv7 => {
                &[("armv7-unknown-linux-musleabihf", Musl), ("armv7-unknown-linux-gnueabihf", Glibc)]
            }
            Arch::Riscv64 => {
                &[("riscv64gc-unknown-linux-musl", Musl), ("riscv64gc-unknown-linux-gnu", Glibc)]
            }
            Arch::Ppc64le => {
                &[("powerpc64le-unknown-linux-musl", Musl), ("powerpc64le-unknown-linux-gnu", Glibc)]
            }
            Arch::S390x => &[("s390x-unknown-linux-gnu", Glibc)],
            Arch::Loongarch64 => {
                &[("loongarch64-unknown-linux-musl", Musl), ("loongarch64-unknown-linux-musl", Built)]
            }
        }
    }

    /// The C compiler for it on another machine, and its Debian package.
    pub(crate) fn c_compiler(self) -> Tool {
        match self {
            Arch::X86_64 => ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
            Arch::Aarch64 => ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
            Arch::I686 => ("i686-linux-gnu-gcc", "gcc-i686-linux-gnu"),
            Arch::Armv7 => ("arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf"),
            Arch::Riscv64 => ("riscv64-linux-gnu-gcc", "gcc-riscv64-linux-gnu"),
            Arch::Ppc64le => ("powerpc64le-linux-gnu-gcc", "gcc-powerpc64le-linux-gnu"),
            Arch::S390x => ("s390x-linux-gnu-gcc", "gcc-s390x-linux-gnu"),
            // Debian 12 has no GCC for it.
            Arch::Loongarch64 => ("clang-19", "clang-19"),
        }
    }

    /// The suite of Debian whose musl is used.
    pub(crate) fn musl_suite(self) -> &'static str {
        // Debian 13 does not have this architecture.
        if self == Arch::Loongarch64 { "sid" } else { "bookworm" }
    }

    /// A file of the static C library for [`c_compiler`](Arch::c_compiler), and its Debian package.
    pub(crate) fn c_library(self) -> (String, String) {
        let (compiler, _) = self.c_compiler();
        let prefix = compiler.trim_end_matches("-gcc");
        (format!("/usr/{prefix}/lib/libc.a"), format!("libc6-dev-{}-cross", self.debian()))
    }

    /// The machine that boots its kernels: that of the tool, unless the tests need another.
    #[must_use]
    pub fn platform(self) -> Platform {
        let Known { qemu, machine, cpu, console, parameters, .. } = *self.known();
        let base = Platform { qemu, machine, cpu, cpus: u32::MAX, console, parameters, second_port: false };
        match self {
            // The older PC boots faster. A busy host makes the kernel distrust the emulated timer.
            Arch::X86_64 | Arch::I686 => {
                Platform { machine: "pc", parameters: "no_timer_check", second_port: true, ..base }
            }
            // With two CPUs, the kernel sometimes stops at "Disabling unused power domains", before it starts
            // /init.
            Arch::Armv7 => Platform { cpus: 1, ..base },
            // Without the firmware that interprets Forth.
            Arch::Ppc64le => Platform { machine: "pseries,x-vof=on", ..base },
            // Its kernel prints from a thread, into the report if that were on the same port.
            Arch::Loongarch64 => Platform { second_port: true, ..base },
            Arch::Aarch64 | Arch::Riscv64 | Arch::S390x => base,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arch, architecture};

    #[test]
    fn the_tool_and_the_chores_have_the_same_architectures_in_the_same_order() {
        let chores = Arch::ALL.map(|arch| format!("{arch:?}").to_lowercase());
        assert_eq!(chores, architecture::ALL.map(|known| known.name.to_owned()));
    }
}
