//! `repot`, the tool, as the demo and the tests run it: by its command line.

use crate::command::{cargo, read, run};
use crate::kernels::Kernel;
use crate::{place, qemu};
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The exit code of `repot boot --timeout` when the time is up.
const TIMED_OUT: i32 = 124;

/// A built `repot`.
#[derive(Debug)]
pub struct Tool {
    program: PathBuf,
}

/// The arguments of `repot boot`.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The initramfs.
    pub image: &'a Path,
    /// What QEMU starts.
    pub kernel: &'a Kernel,
    /// Appended to the kernel command line.
    pub append: &'a str,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The guest is killed after this time.
    pub limit: Duration,
    /// The directory of `console.txt` and `report.json`.
    pub folder: &'a Path,
}

impl Tool {
    /// Builds the tool for development. It finds the init in `target/dist` by itself.
    ///
    /// # Errors
    /// If the build fails.
    pub fn developers() -> Result<Tool> {
        let words = ["build", "--quiet", "--package=repot-cli", "--bin=repot"];
        run(cargo().args(words)).context("cannot build repot")?;
        Ok(Tool { program: place::built().join("debug/repot") })
    }

    /// A tool that is already built.
    #[must_use]
    pub fn at(program: PathBuf) -> Tool {
        Tool { program }
    }

    /// Runs one of its commands in `folder` and returns the standard output.
    ///
    /// # Errors
    /// If the command fails.
    pub fn run<S: AsRef<OsStr>>(&self, folder: &Path, words: &[S]) -> Result<String> {
        // Variables of the developer's shell must not change the result.
        let mut command = Command::new(&self.program);
        command.env_remove("REPOT_INIT").env_remove("SOURCE_DATE_EPOCH");
        read(command.current_dir(folder).args(words))
    }

    /// Runs one of its commands in `folder` and returns everything that it prints, whether it fails or not.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn output<S: AsRef<OsStr>>(&self, folder: &Path, words: &[S]) -> Result<String> {
        let mut command = Command::new(&self.program);
        let output = command.current_dir(folder).args(words).output();
        let output = output.with_context(|| format!("cannot run {}", self.program.display()))?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    /// Boots an image and waits until the guest ends.
    ///
    /// # Errors
    /// If the tool cannot be run or fails.
    pub fn boot(&self, boot: &Boot) -> Result<qemu::Run> {
        self.boot_with(boot, &[])
    }

    /// Boots an image with more options of QEMU, and waits until the guest ends.
    ///
    /// # Errors
    /// If the tool cannot be run or fails.
    pub fn boot_with(&self, boot: &Boot, more: &[String]) -> Result<qemu::Run> {
        let (console, report) = (boot.folder.join("console.txt"), boot.folder.join("report.json"));
        let port = format!("file:{}", report.display());
        let begun = Instant::now();
        let output = Command::new(&self.program)
            .args(["boot", "--no-kvm", "--memory", &format!("{}M", boot.memory_mib), "--append", boot.append])
            .arg("--kernel")
            .arg(&boot.kernel.image)
            .arg("--console")
            .arg(&console)
            .args(["--timeout", &boot.limit.as_secs().to_string()])
            .arg(boot.image)
            .args(["--", "-serial", &port])
            .args(more)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let (status, messages) = (output.status, String::from_utf8_lossy(&output.stderr));
        let late = status.code() == Some(TIMED_OUT);
        ensure!(status.success() || late, "repot boot failed: {messages}");
        qemu::Run::read(&console, &report, begun.elapsed(), late)
    }
}
