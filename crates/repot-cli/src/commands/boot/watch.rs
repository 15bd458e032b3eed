//! Runs QEMU and reads the console on its way to the terminal or file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::Machine;
use super::exit::Port;
use crate::cli::Boot;
use crate::errors::Status;
use crate::sys;

/// How the kernel begins the report of its own death (kernel/panic.c).
const PANIC: &[u8] = b"Kernel panic - not syncing";
/// The exit code of timeout(1) when time is up.
const TIMED_OUT: u8 = 124;
/// How long QEMU may take to end itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// What happens while QEMU runs.
enum Event {
    /// The console showed the text of `--expect`.
    Expected,
    /// The console showed a panic: this line.
    Panic(String),
    /// QEMU has closed the console, or the console could not be written.
    Closed(io::Result<()>),
}

/// Runs QEMU until the guest ends, the time is up or the text was seen.
pub(super) fn run(mut command: Command, machine: &Machine, exit: &Port, args: &Boot) -> Result<()> {
    let console: Box<dyn Write + Send> = match &args.console {
        None => Box::new(io::stdout()),
        Some(path) => Box::new(create(path)?),
    };
    sys::end_with_this_thread(&mut command);
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{} is not installed (Debian: apt install {})", machine.qemu(), machine.package())
        }
        child => child.with_context(|| format!("cannot run {}", machine.qemu()))?,
    };
    let (sender, events) = channel();
    let output = child.stdout.take().context("QEMU has no output")?;
    let expected = args.expect.clone().map(String::into_bytes);
    let _reader = thread::spawn(move || {
        let result = copy(output, console, expected.as_deref(), &sender);
        let _ = sender.send(Event::Closed(result));
    });
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let ended = wait(&events, deadline, args);
    if !matches!(ended, Ok(Ended::Guest(_))) {
        stop(&mut child, &events);
    }
    let status = child.wait().with_context(|| format!("cannot wait for {}", machine.qemu()))?;
    result(ended?, status, exit, args)
}

/// Why the waiting ended.
enum Ended {
    /// The guest ended, after a panic if there is a line.
    Guest(Option<String>),
    Expected,
    TimedOut,
}

fn wait(events: &Receiver<Event>, deadline: Option<Instant>, args: &Boot) -> Result<Ended> {
    let mut panic = None;
    loop {
        let left =
            deadline.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
        match events.recv_timeout(left) {
            Ok(Event::Expected) => return Ok(Ended::Expected),
            Ok(Event::Panic(line)) => panic = Some(line),
            Ok(Event::Closed(Ok(()))) | Err(RecvTimeoutError::Disconnected) => {
                return Ok(Ended::Guest(panic));
            }
            Ok(Event::Closed(Err(error))) => {
                let console = args.console.as_deref().unwrap_or(Path::new("standard output"));
                return Err(error).with_context(|| format!("cannot write {}", console.display()));
            }
            Err(RecvTimeoutError::Timeout) if deadline.is_some() => return Ok(Ended::TimedOut),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn result(ended: Ended, status: ExitStatus, exit: &Port, args: &Boot) -> Result<()> {
    match ended {
        Ended::Expected => Ok(()),
        Ended::TimedOut => {
            let seconds = args.timeout.unwrap_or_default().as_secs();
            say!("the guest was stopped after {seconds} s (--timeout)");
            Err(Status(TIMED_OUT).into())
        }
        Ended::Guest(Some(line)) => bail!("the guest panicked: {line}"),
        Ended::Guest(None) if !status.success() => bail!("QEMU ended with {status}"),
        Ended::Guest(None) => match (exit.code(), &args.expect) {
            (_, Some(text)) => bail!("the console did not show {text:?} (--expect)"),
            (None | Some(0), None) => Ok(()),
            (Some(code), None) => Err(Status(code).into()),
        },
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

/// Ends QEMU and with it the guest: nothing in it is kept anyway.
fn stop(child: &mut Child, events: &Receiver<Event>) {
    // On SIGTERM, QEMU gives the terminal back as it was.
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Closed(_)) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => break,
        }
    }
    // Fails only if it has ended already.
    let _ = child.kill();
}

/// Copies the console, and reports what it shows.
fn copy(
    mut from: impl Read,
    mut to: Box<dyn Write + Send>,
    expected: Option<&[u8]>,
    events: &Sender<Event>,
) -> io::Result<()> {
    let mut buffer = [0; 4096];
    // The line so far. A console without line feeds is cut, but never inside a text that is looked for.
    let mut line: Vec<u8> = Vec::new();
    let (mut seen, mut panicked) = (false, false);
    let keep = expected.map_or(0, <[u8]>::len).max(1024);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..count])?;
        to.flush()?;
        for byte in &buffer[..count] {
            line.push(*byte);
            if let Some(expected) = expected.filter(|_| !seen)
                && line.ends_with(expected)
            {
                seen = true;
                let _ = events.send(Event::Expected);
            }
            if *byte == b'\n' {
                if !panicked && line.windows(PANIC.len()).any(|window| window == PANIC) {
                    panicked = true;
                    let text = String::from_utf8_lossy(&line).trim().to_string();
                    let _ = events.send(Event::Panic(text));
                }
                line.clear();
            } else if line.len() > 4 * keep {
                line.drain(..line.len() - keep);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str, expected: Option<&str>) -> Vec<Event> {
        let (sender, receiver) = channel();
        let out = Box::new(io::sink());
        copy(text.as_bytes(), out, expected.map(str::as_bytes), &sender).unwrap();
        drop(sender);
        receiver.iter().collect()
    }

    #[test]
    fn text_is_found_without_a_line_feed_and_once() {
        let seen = events(&format!("{}login: login: ", "x".repeat(10_000)), Some("login:"));
        assert!(matches!(seen[..], [Event::Expected]));
        assert!(events("log\nin:", Some("login:")).is_empty());
    }

    #[test]
    fn first_panic_is_reported_with_its_line() {
        let text =
            "[ 1.0] Kernel panic - not syncing: no init\r\n[ 1.1] end Kernel panic - not syncing: no init\n";
        let seen = events(text, None);
        assert!(
            matches!(&seen[..], [Event::Panic(line)] if line == "[ 1.0] Kernel panic - not syncing: no init")
        );
    }
}
