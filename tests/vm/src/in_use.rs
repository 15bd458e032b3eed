//! Boots in which somebody else uses the old root: mounts, loop devices, processes, the kernel. Each file of
//! `tests/vm/in-use` is a row of docs/in-use.md or a part of one, booted on every kernel, from a ramfs and
//! from a tmpfs.

use crate::{Boot, LIMIT, busybox, last_lines, programs, with_second_try};
use anyhow::{Context, Result, ensure};
use repot_harness::tool::{self, Tool};
use repot_harness::{command, debian, kernels, place};
use serde::Deserialize;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// One file of `tests/vm/in-use`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(skip)]
    name: String,
    /// One sentence: what is broken if this fails.
    #[allow(dead_code, reason = "for the reader of the file")]
    about: String,
    /// Modules that are loaded first, where the kernel does not have them built in.
    #[serde(default)]
    modules: Vec<String>,
    /// Kernels that have these built in.
    #[serde(default)]
    built_in: Vec<String>,
    /// `/etc/repot.conf`.
    #[serde(default)]
    config: String,
    /// A shell script, run as `/init`. Then it executes the init under test.
    stage: String,
    /// A shell script, the real init. It writes to the console, unless it keeps the streams of the stage.
    check: String,
    #[serde(default)]
    keeps_streams: bool,
    /// Lines of the console.
    prints: Vec<String>,
    /// Parts of repot's lines in the kernel log.
    log: Vec<String>,
    /// Texts that no line of repot may contain.
    #[serde(default)]
    log_without: Vec<String>,
    #[serde(skip)]
    image: OnceLock<Result<(), String>>,
}

/// Boots of each row that are not long: the others run where all are asked for.
const SAMPLE: usize = 2;

/// The boots of all rows.
///
/// # Errors
/// If a row cannot be read.
pub(crate) fn boots() -> Result<Vec<Boot>> {
    let mut boots = Vec::new();
    for (index, row) in rows()?.into_iter().map(Arc::new).enumerate() {
        let series = kernels::series();
        let machines: Vec<_> =
            series.iter().flat_map(|series| ["ramfs", "tmpfs"].map(|root| (*series, root))).collect();
        // Two that are on different kernels and roots, others for each row.
        let far = machines.len() / 2 + 1;
        let sample: Vec<_> = (0..SAMPLE).map(|turn| (index + turn * far) % machines.len()).collect();
        for (number, (series, root)) in machines.into_iter().enumerate() {
            let row = Arc::clone(&row);
            boots.push(Boot {
                name: format!("in-use/{}-{series}-{root}", row.name),
                long: !sample.contains(&number),
                run: Box::new(move || row.boot(series, root)),
            });
        }
    }
    Ok(boots)
}

fn rows() -> Result<Vec<Row>> {
    let folder = place::checkout().join("tests/vm/in-use");
    let mut rows = Vec::new();
    for item in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = item?.path();
        let read = |path: &Path| -> Result<Row> { Ok(toml::from_str(&std::fs::read_to_string(path)?)?) };
        let mut row = read(&path).with_context(|| path.display().to_string())?;
        row.name = path.file_stem().context("a file has a name")?.to_string_lossy().into_owned();
        rows.push(row);
    }
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(rows)
}

impl Row {
    fn boot(&self, series: &str, root: &str) -> Result<()> {
        debian::need(&[debian::QEMU, debian::BUSYBOX, ("cpio", "cpio")])?;
        let folder = format!("in-use/{}", self.name);
        let built = self.image.get_or_init(|| {
            let build = || self.build(&place::fresh(&folder)?);
            build().map_err(|error| format!("{error:#}"))
        });
        built.clone().map_err(anyhow::Error::msg).context("cannot build the image")?;
        let runs = place::kept(&format!("{folder}/{series}-{root}"))?;
        let boot = tool::Boot {
            image: &place::kept(&folder)?.join("image"),
            kernel: &kernels::kernel(series)?,
            append: &format!("rootfstype={root}"),
            memory_mib: 256,
            limit: LIMIT,
            folder: &runs,
        };
        let run = with_second_try(|| Tool::at(programs::tool()?.to_owned()).boot(&boot))?;
        for line in &self.prints {
            let printed = run.console.lines().any(|printed| printed.trim() == *line);
            ensure!(printed, "does not print {line:?}; the last lines: {}", last_lines(&run.console));
        }
        let log: Vec<&str> = run.console.lines().filter(|line| line.contains("repot: ")).collect();
        for part in &self.log {
            ensure!(log.iter().any(|line| line.contains(part)), "the log is without {part:?}: {log:#?}");
        }
        for part in &self.log_without {
            ensure!(!log.iter().any(|line| line.contains(part)), "the log has {part:?}: {log:#?}");
        }
        Ok(())
    }

    fn build(&self, folder: &Path) -> Result<()> {
        let root = folder.join("root");
        busybox::root(folder)?;
        let mut load = String::new();
        for series in kernels::series() {
            if self.modules.is_empty() || self.built_in.iter().any(|built_in| built_in == series) {
                continue;
            }
            let modules = kernels::drivers(series, &self.modules)?;
            let at = root.join("modules").join(&modules.release);
            std::fs::create_dir_all(&at)?;
            for file in &modules.files {
                std::fs::copy(file, at.join(file.file_name().context("a module has a name")?))?;
            }
        }
        for module in &self.modules {
            let file = format!("/modules/$(uname -r)/{module}.ko");
            writeln!(load, "test -e {file} && insmod {file}")?;
        }
        let shell = "#!/bin/sh\nexport PATH=/bin\n";
        let mounts = "mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev\n";
        script(&root.join("init"), &format!("{shell}{mounts}{load}{}\nexec /repot\n", self.stage))?;
        let streams = if self.keeps_streams { "" } else { "exec < /dev/console > /dev/console 2>&1\n" };
        script(&root.join("bin/init"), &format!("{shell}{streams}{}\npoweroff -f\n", self.check))?;
        std::fs::copy(programs::init()?, root.join("repot"))?;
        std::fs::write(root.join("etc/repot.conf"), &self.config)?;
        let pack = "(cd root && find . | cpio -o -H newc -R 0:0 --quiet) > image";
        command::read(Command::new("sh").current_dir(folder).args(["-ec", pack]))?;
        Ok(())
    }
}

fn script(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))?)
}
