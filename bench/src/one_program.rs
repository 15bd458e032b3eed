//! `cargo xtask bench run`: what the runner costs. The same static program as the plain `/init` of a bare
//! initramfs and as the program of an image made by `pack`: the time from the kernel's start to its first
//! instruction, turn by turn, and the smallest machine in which it runs.

use anyhow::{Context, Result, ensure};
use repot_harness::{build, debian, kernels, place};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::guest_output::GuestOutput;
use crate::{document, machine, text};

/// Steps of the smallest machine, in MiB.
const STEP: u64 = 2;
const WAYS: [(&str, &str); 2] = [("plain /init", "plain"), ("program of the runner", "packed")];
const MACHINES: [(&str, &[&str]); 2] = [("pc (q35)", &[]), ("microvm", &["--machine", "microvm"])];
/// The emulated CPU executes one instruction a nanosecond of the guest's clock, and idle time passes at once.
/// So the times do not depend on what else runs on the host.
const CLOCK: [&str; 2] = ["-icount", "shift=0,sleep=off"];
/// The kernel tests its own ciphers in threads, which take the only CPU whenever the init waits for
/// something.
const SELF_TESTS: [(&str, &str); 2] = [("", ""), (", no self-tests", "cryptomgr.notests ")];

struct Bench {
    tool: PathBuf,
    kernel: PathBuf,
    folder: PathBuf,
}

/// Measures, prints the tables and, unless `quick`, writes docs/bench/run.md.
pub(crate) fn run(rounds: usize, quick: bool) -> Result<()> {
    debian::need(&[debian::QEMU, ("cpio", "cpio"), ("zstd", "zstd")])?;
    let bench = Bench {
        tool: build::tool(&[build::Arch::X86_64])?,
        kernel: kernels::kernel("6.12")?.image,
        folder: place::fresh("bench-run")?,
    };
    bench.images(&build::guest("bench-guest")?)?;
    let rounds = if quick { 1 } else { rounds };
    let times = bench.times(rounds)?;
    print!("{times}");
    let sizes = bench.sizes()?;
    print!("{sizes}");
    if quick {
        return Ok(());
    }
    let page = format!(
        "# What the runner costs\n\nThe same static program as the `/init` of a bare initramfs, and as the program of an \
         image made by `repot pack`\n(`cargo xtask bench run`). Linux 6.12, emulated by QEMU, one CPU. {}\n\nFrom the \
         kernel's start to the first instruction of the program, median of {rounds} rounds, interleaved, in time of the \
         guest. The\nclock of the guest counts instructions, one a nanosecond, so the times do not depend on what else \
         the host does. The kernel\ntests its ciphers in threads of its own, which run whenever the init waits for \
         something, for instance for the end of an RCU\ngrace period when it closes a mount. With one CPU they delay the \
         program; `cryptomgr.notests` turns them off:\n\n{times}\nThe smallest machine in which the program runs, in \
         steps of {STEP} MiB:\n\n{sizes}",
        machine::about()?
    );
    document::write("run.md", &page)
}

impl Bench {
    fn images(&self, guest: &Path) -> Result<()> {
        for directory in ["bare", "root"] {
            std::fs::create_dir_all(self.folder.join(directory))?;
        }
        std::fs::copy(guest, self.folder.join("bare/init")).context("the program")?;
        std::fs::copy(guest, self.folder.join("root/program")).context("the program")?;
        let script = "(cd bare && find . | cpio -o -H newc -R 0:0 --quiet) | zstd -q -9 -o plain; \
                      \"$TOOL\" pack root -o packed -- /program first";
        let mut shell = Command::new("sh");
        shell.current_dir(&self.folder).args(["-ec", script]).env("TOOL", &self.tool).stdout(Stdio::null());
        ensure!(shell.status().context("cannot run sh")?.success(), "cannot build the images");
        Ok(())
    }

    /// Boots an image. Returns the nanoseconds until the first instruction, or nothing if the program did not
    /// run.
    fn boot(&self, image: &str, options: &[&str], parameters: &str, memory: u64) -> Result<Option<u64>> {
        let console = self.folder.join("console");
        let mut command = Command::new(&self.tool);
        command.args([
            "boot",
            "--no-kvm",
            "--cpus",
            "1",
            "--timeout",
            "5m",
            "--memory",
            &format!("{memory}M"),
        ]);
        command.args(options).args(["--append", &format!("quiet {parameters}-- first")]).arg("--console");
        command
            .arg(&console)
            .arg("--kernel")
            .arg(&self.kernel)
            .arg(self.folder.join(image))
            .arg("--")
            .args(CLOCK);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command.status().context("cannot run repot boot")?;
        let output = GuestOutput::new(&std::fs::read(&console)?);
        output.word("first").map(|word| word.trim().parse().context("the time")).transpose()
    }

    fn times(&self, rounds: usize) -> Result<String> {
        let mut rows = Vec::new();
        for (machine, options) in MACHINES {
            for (suffix, parameters) in SELF_TESTS {
                let name = format!("{machine}{suffix}");
                let [plain, packed] = self.medians(rounds, options, parameters).context(name.clone())?;
                let shown = [plain, packed].map(|seconds| format!("{seconds:.3} s"));
                rows.push([vec![name], shown.to_vec(), vec![format!("{:.3}", packed / plain)]].concat());
            }
        }
        Ok(text::table(&["machine", WAYS[0].0, WAYS[1].0, "ratio"], &rows))
    }

    /// The median times of both ways, in seconds, turn by turn.
    fn medians(&self, rounds: usize, options: &[&str], parameters: &str) -> Result<[f64; 2]> {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            for turn in 0..2 {
                let at = if round % 2 == 0 { turn } else { 1 - turn };
                let time = self.boot(WAYS[at].1, options, parameters, 256)?;
                times[at].push(time.with_context(|| format!("{} did not run", WAYS[at].0))?);
            }
        }
        Ok(times.map(|mut times| {
            times.sort_unstable();
            std::time::Duration::from_nanos(times[times.len() / 2]).as_secs_f64()
        }))
    }

    fn sizes(&self) -> Result<String> {
        let mut sizes = Vec::new();
        for (_, image) in WAYS {
            // The first runs, the second does not.
            let (mut runs, mut fails) = (256 / STEP, 16 / STEP);
            while runs - fails > 1 {
                let middle = u64::midpoint(runs, fails);
                let works = self.boot(image, &[], "", middle * STEP)?.is_some();
                *(if works { &mut runs } else { &mut fails }) = middle;
            }
            sizes.push(format!("{} MiB", runs * STEP));
        }
        Ok(text::table(
            &["machine", WAYS[0].0, WAYS[1].0],
            &[[vec![MACHINES[0].0.to_owned()], sizes].concat()],
        ))
    }
}
