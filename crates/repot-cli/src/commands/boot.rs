//! `repot boot`: boots an image in QEMU, with its console on this terminal.

mod added;
mod drivers;
mod exit;
mod firmware;
mod glance;
mod kernel;
mod parts;
mod share;
mod watch;

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use repot::facts::program::Architecture;

pub(super) use added::Member;
pub(super) use kernel::of_file as kernel_architecture;

use crate::architecture::{self, Known};
use crate::cli::{self, Boot, Network};
use crate::errors::Status;
use crate::report::size;
use crate::survey::Survey;
use crate::survey::file::ImageFile;

/// Minimum memory of the guest in bytes.
const MEMORY: u64 = 512 << 20;

/// The guest's place in QEMU's own network (`-netdev user`): address, gateway, netmask and name server. The
/// kernel follows this, or the runner if the kernel was built without CONFIG_IP_PNP.
const ADDRESS: &str = "ip=10.0.2.15::10.0.2.2:255.255.255.0:::off:10.0.2.3";

/// The machine that QEMU plays.
struct Machine {
    known: &'static Known,
    microvm: bool,
}

/// An error unless QEMU can read it as a file.
fn is_file(what: &str, path: &std::path::Path) -> Result<()> {
    let shown = path.display();
    let found = path.metadata().with_context(|| format!("cannot open the {what} {shown}"))?;
    ensure!(found.is_file(), "the {what} {shown} is not a regular file");
    Ok(())
}

/// Runs the command: boots the image and waits for the end of the guest.
pub fn run(args: &Boot) -> Result<()> {
    is_file("image", &args.image)?;
    let mut shares = share::Shares::new(&args.share)?;
    // Reading the image takes as long as unpacking it, so skip it if its result is not needed.
    let wanted = args.memory.is_none() || args.shell || !args.force;
    let mut file = ImageFile::open(&args.image)?;
    let survey = if wanted { Some(survey(&mut file, args.force)?) } else { None };
    let bytes = file.bytes();
    if let Some(given) = &args.firmware {
        return firmware::run(&file, survey.as_ref(), given.as_deref(), args);
    }
    let parts = parts::take(&file, args)?;
    let args = parts.as_ref().map_or(args, |parts| &parts.args);
    let architecture = match &survey {
        Some(survey) => survey.architecture(),
        None => glance::architecture(&args.image),
    };
    let (kernel, of_kernel) = kernel::find(args.kernel.as_deref(), architecture)?;
    let page = kernel::page(&kernel).unwrap_or_else(|| architecture::pages(architecture)[0]);
    let need = || survey.as_ref().map_or(MEMORY, |survey| memory(survey.need(bytes, page).tmpfs));
    let memory = args.memory.unwrap_or_else(need);
    let machine = machine(args.machine, of_kernel, architecture)?;
    let network = args.network == Network::User || !args.publish.is_empty();
    let modules = drivers::Folder::of(&kernel);
    shares.choose(modules.as_ref())?;
    let mut drivers = if network { drivers::NETWORK.to_vec() } else { Vec::new() };
    drivers.extend(shares.drivers());
    let added = added::image(args, modules.as_ref(), &drivers)?;
    let image = added.image.as_ref().map_or_else(|| args.image.clone(), added::Image::path);
    let acceleration = acceleration(args.no_kvm, &machine);
    let shell = args.shell.then(|| shell(survey.as_ref().is_none_or(Survey::repot), args));
    let runner = added.image.as_ref().and_then(|image| image.parameters.as_deref());
    let shared = shares.parameters(added.has_runner);
    let exit_code = exit::PARAMETER.filter(|_| machine.is_pc());
    let more = [shell, runner, exit_code, network.then_some(ADDRESS), shared.as_deref()];
    let line = command_line(&machine, acceleration.emulated, &more, &args.append);
    let (mut command, ends) = guest(&machine, &acceleration, memory, args);
    let unpacked = kernel::unpacked(&kernel)?;
    let started = unpacked.as_ref().map_or(&*kernel, |file| file.path());
    command.arg("-kernel").arg(started).arg("-initrd").arg(&image).args(["-append", &line]);
    let exit = exit::Port::new(&machine)?;
    command.args(exit.arguments()).args(devices(args));
    let mut daemons = shares.serve(&mut command, memory)?;
    command.args(&args.qemu);
    let (kernel, memory, how) = (kernel.display(), size::mib(memory), acceleration.description);
    say!("booting {kernel} with {memory}, {how}; {ends}");
    watch::run(command, &machine, &exit, args).map_err(|error| {
        let Some(why) = daemons.complaint() else { return error };
        // The exit code of a guest that ended by itself stays what it is.
        if error.is::<Status>() {
            say!("warning: {why}");
            return error;
        }
        error.context(why)
    })
}

/// QEMU with a machine and its console, and how that ends.
fn guest(machine: &Machine, acceleration: &Acceleration, memory: u64, args: &Boot) -> (Command, String) {
    let mut command = Command::new(machine.qemu());
    command
        .args(machine.arguments())
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-m", &format!("{}M", memory >> 20)])
        .args(["-smp", &args.cpus.to_string(), "-accel", acceleration.accel, "-cpu", acceleration.cpu]);
    let ends = if args.console.is_none() {
        // The firmware writes to a serial console only with -nographic.
        let display = if args.exec.is_some() { &["-display", "none"][..] } else { &["-nographic"] };
        command.args(display).args(["-serial", "mon:stdio"]);
        "press Ctrl-A X to quit".to_string()
    } else {
        command.args(["-display", "none", "-serial", "stdio"]).stdin(Stdio::null());
        args.console.as_ref().map_or(String::new(), |path| format!("console in {}", path.display()))
    };
    (command, ends)
}

/// QEMU's arguments for the network.
fn devices(args: &Boot) -> Vec<OsString> {
    let mut devices: Vec<OsString> = Vec::new();
    if args.network == Network::User || !args.publish.is_empty() {
        let mut user = "user,id=repot-net".to_string();
        for (here, guest) in &args.publish {
            // Writing to a String cannot fail.
            let _ = write!(user, ",hostfwd=tcp:127.0.0.1:{here}-:{guest}");
        }
        devices.extend(["-netdev", &user, "-device", "virtio-net-pci,netdev=repot-net"].map(OsString::from));
    }
    devices
}

fn command_line(machine: &Machine, emulated: bool, more: &[Option<&str>], append: &[String]) -> String {
    let mut line = format!("console={} panic=-1", machine.known.console);
    if emulated && machine.is_pc() {
        // On a busy host the emulated timer is late, and the kernel would panic about it.
        line += " no_timer_check";
    }
    if emulated && machine.is_microvm() {
        // It lacks the speaker port by which the kernel would measure the TSC, and hangs without one.
        line += " tsc_early_khz=1000000";
    }
    let own = Some(machine.known.parameters).filter(|words| !words.is_empty());
    for words in
        own.into_iter().chain(more.iter().copied().flatten()).chain(append.iter().map(String::as_str))
    {
        line += " ";
        line += words;
    }
    line
}

/// The parameter that makes a shell the init. An `/init` that is not repot may not follow `init=`.
fn shell(repot: bool, args: &Boot) -> &'static str {
    let elsewhere =
        args.append.iter().flat_map(|words| words.split(' ')).any(|word| word.starts_with("rdinit="));
    if repot || elsewhere { "repot.init=/bin/sh" } else { "rdinit=/bin/sh" }
}

impl Machine {
    fn qemu(&self) -> &'static str {
        self.known.qemu.0
    }

    /// The Debian package of QEMU.
    fn package(&self) -> &'static str {
        self.known.qemu.1
    }

    fn arguments(&self) -> [&'static str; 2] {
        // With a PCI Express bus, since distributions build the driver of the other bus (virtio_mmio) as a
        // module.
        ["-M", if self.microvm { "microvm,pcie=on" } else { self.known.machine }]
    }

    fn is_pc(&self) -> bool {
        matches!(self.known.name, "x86_64" | "i686")
    }

    fn is_microvm(&self) -> bool {
        self.microvm
    }

    /// Whether this machine's own CPU could run the guest.
    fn is_native(&self) -> bool {
        architecture::own().is_some_and(|own| own == self.known || self.is_pc() && own.name == "x86_64")
    }
}

/// The machine for a kernel, else for an image, else like this one.
fn machine(
    asked: Option<cli::Machine>,
    kernel: Option<&'static Known>,
    image: Option<Architecture>,
) -> Result<Machine> {
    let known = kernel.or_else(|| image.and_then(architecture::of)).or_else(architecture::own);
    let known = known.with_context(|| format!("no QEMU machine type is known for {}", env::consts::ARCH))?;
    let machine = Machine { known, microvm: asked == Some(cli::Machine::Microvm) };
    ensure!(
        !machine.microvm || machine.is_pc(),
        "--machine microvm is for x86_64, and this is {}",
        known.name
    );
    Ok(machine)
}

/// How QEMU runs the guest.
struct Acceleration {
    emulated: bool,
    accel: &'static str,
    cpu: &'static str,
    /// For the message.
    description: &'static str,
}

fn acceleration(no_kvm: bool, machine: &Machine) -> Acceleration {
    let kvm = || File::options().read(true).write(true).open("/dev/kvm").is_ok();
    let description = if no_kvm || !machine.is_native() {
        "emulated"
    } else if !kvm() {
        "slow emulation (/dev/kvm cannot be opened)"
    } else if !kvm_works(machine) {
        "slow emulation (QEMU cannot use the KVM of this machine)"
    } else {
        return Acceleration { emulated: false, accel: "kvm", cpu: "host", description: "KVM" };
    };
    // With one thread per CPU, QEMU 7.2 sometimes executes an instruction while the kernel patches it, and
    // the guest dies of int3.
    Acceleration { emulated: true, accel: "tcg,thread=single", cpu: machine.known.cpu, description }
}

/// Whether QEMU can start a machine with KVM. Nested KVM may lack features that make QEMU abort.
fn kvm_works(machine: &Machine) -> bool {
    let mut command = Command::new(machine.qemu());
    command.args(machine.arguments()).args(["-nodefaults", "-no-user-config", "-display", "none", "-S"]);
    command.args(["-accel", "kvm", "-cpu", "host", "-monitor", "stdio"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return true };
    // The write fails if QEMU has exited already, and then its status tells.
    let _ = child.stdin.take().map(|mut monitor| monitor.write_all(b"quit\n"));
    child.wait().is_ok_and(|status| status.success())
}

/// The contents of the image.
fn survey(image: &mut ImageFile, force: bool) -> Result<Survey> {
    let mut survey = Survey::default();
    if let Err(error) = image.read(&mut survey) {
        ensure!(force, "{error:#} (--force boots it)");
        say!("warning: {error:#}");
    }
    Ok(survey)
}

/// The memory for an image that needs `need` bytes.
fn memory(need: u64) -> u64 {
    if need > MEMORY {
        say!("the image needs about {} of memory", size::mib(need));
    }
    need.max(MEMORY)
}
