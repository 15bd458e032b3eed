//! What can be chosen for the guest of `boot`.

/// A machine that QEMU emulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Machine {
    /// A PC without legacy devices, with a PCI Express bus (x86_64)
    Microvm,
}

/// The network of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Network {
    /// None
    None,
    /// A virtio network card behind QEMU's own NAT: 10.0.2.15, gateway 10.0.2.2 (ip=)
    User,
}
