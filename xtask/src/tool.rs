//! `repot`, the tool, as the demo and the tests run it: from the outside, by its command line.

use crate::command::{read, run};
use crate::kernels::Kernel;
use crate::{place, qemu};
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A built `repot`.
#[derive(Debug)]
pub(crate) struct Tool {
    program: PathBuf,
}

/// An image to boot with it.
#[derive(Debug)]
pub(crate) struct Boot<'a> {
    pub(crate) image: &'a Path,
    pub(crate) kernel: &'a Kernel,
    pub(crate) append: &'a str,
    pub(crate) memory_mib: u32,
    pub(crate) limit: Duration,
    /// Where the console and the report are left.
    pub(crate) folder: &'a Path,
}

impl Tool {
    /// The developer's build: it shares everything with this program, and finds the init in `target/dist` by itself.
    pub(crate) fn developers() -> Result<Tool> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Both packages, so that what they depend on has the features it has already been built with.
        let words = ["build", "--quiet", "--package=xtask", "--package=repot-cli", "--bin=repot"];
        run(cargo.current_dir(place::checkout()).args(words)).context("repot does not build")?;
        Ok(Tool { program: place::built().join("debug/repot") })
    }

    /// One that was built.
    pub(crate) fn at(program: PathBuf) -> Tool {
        Tool { program }
    }

    /// Runs a command of it in `folder` and gives what it printed.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, folder: &Path, words: &[S]) -> Result<String> {
        // What the developer's shell says about inits and times is not what is tried here.
        let mut command = Command::new(&self.program);
        command.env_remove("REPOT_INIT").env_remove("SOURCE_DATE_EPOCH");
        read(command.current_dir(folder).args(words))
    }

    /// Boots an image and waits for the guest's end.
    pub(crate) fn boot(&self, boot: &Boot) -> Result<qemu::Run> {
        let (console, report) = (boot.folder.join("console.txt"), boot.folder.join("report.json"));
        let port = format!("file:{}", report.display());
        let begun = Instant::now();
        let mut child = Command::new(&self.program)
            .args(["boot", "--no-kvm", "--memory", &format!("{}M", boot.memory_mib), "--append", boot.append])
            .arg("--kernel")
            .arg(&boot.kernel.image)
            .arg("--console")
            .arg(&console)
            .arg(boot.image)
            .args(["--", "-serial", &port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let said = child.stderr.take();
        let status = qemu::wait(&mut child, boot.limit)?;
        let mut words = String::new();
        said.context("repot has no standard error")?.read_to_string(&mut words)?;
        ensure!(status.is_none_or(|status| status.success()), "repot boot failed: {words}");
        qemu::Run::read(&console, &report, begun.elapsed(), status.is_none())
    }
}
