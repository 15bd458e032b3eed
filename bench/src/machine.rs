//! What a reader must know of the machine to judge the numbers, without its name or location.

use anyhow::{Context, Result};
use std::fs::read_to_string;

/// A sentence about the machine, and one more if the run had real-time priority.
pub(crate) fn about() -> Result<String> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let version: String =
        kernel.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
    let field = |file: &str, key: &str| -> Result<String> {
        let text = read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        let line = text.lines().find(|line| line.starts_with(key));
        Ok(line
            .and_then(|line| line.split_once(':'))
            .map_or_else(String::new, |(_, value)| value.trim().to_owned()))
    };
    let processor = field("/proc/cpuinfo", "model name")?;
    let hypervisor = field("/proc/cpuinfo", "flags")?.split(' ').any(|flag| flag == "hypervisor");
    let memory: u64 = field("/proc/meminfo", "MemTotal")?.trim_end_matches(" kB").parse().unwrap_or(0);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!(
        "Linux {}, {count} CPUs ({processor}){}, {} GiB of memory.{}",
        version.trim_end_matches('.'),
        if hypervisor { " in a virtual machine" } else { "" },
        memory.div_ceil(1 << 20),
        if real_time()? { " Everything ran with real-time priority, ahead of other processes." } else { "" },
    ))
}

/// Whether this process has a real-time priority, as by `chrt -f 10`. Its children inherit it.
fn real_time() -> Result<bool> {
    let stat = read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // The second field is a name in parentheses, the 40th is the priority.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' '));
    let priority = fields.and_then(|mut fields| fields.nth(40 - 3));
    Ok(priority.context("/proc/self/stat is too short")? != "0")
}
