//! What a container image runs: its configuration, overridden by the command line, becomes the description
//! for the runner (`repot::run`).

mod user;

use std::collections::BTreeMap;
use std::ffi::CString;

use anyhow::{Context, Result, bail, ensure};
use repot::facts::program::{self, Architecture, Candidate, Machine, Why};
use repot::run::{DESCRIPTION, OnExit, Program, RUNNER};
use rustix::io::Errno;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::image::config::Setting;
use crate::init_binary::InitBinary;
use crate::programs::{self, Programs};
use crate::report::name::shown;
use crate::tree::{Attributes, Contents, Inode, Kind, Tree};

/// The `PATH` of an image that sets none, as container engines set it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The part of an image's configuration that says how it is run (OCI image specification, config.md).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, IgnoredAny>>,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    /// Docker's extension; its test is `NONE` where an image switches off that of its base.
    healthcheck: Option<Healthcheck>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Healthcheck {
    test: Vec<String>,
}

/// What the command line says about the program.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The program and its arguments, instead of the image's.
    pub args: Vec<String>,
    /// `NAME=VALUE`, instead of the image's variable of this name.
    pub env: Vec<String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// `USER`, `UID`, `USER:GROUP` and so on.
    pub user: Option<String>,
    /// What happens when the program has ended.
    pub onexit: Option<OnExit>,
}

/// Describes the program for the runner. Makes its working directory and volumes in the tree, as container
/// engines do.
///
/// # Errors
/// If nothing says what to run, or the program or its user is not in the tree.
pub fn describe(
    tree: &mut Tree,
    config: &Config,
    request: &Request,
    architecture: Option<Architecture>,
) -> Result<Program> {
    let mut program = Program::default();
    let image = || config.entrypoint.iter().chain(&config.cmd).flatten();
    let args: Vec<&String> =
        if request.args.is_empty() { image().collect() } else { request.args.iter().collect() };
    ensure!(
        !args.is_empty(),
        "nothing says what to run: the image has no Entrypoint and no Cmd. Add -- PROGRAM ARGUMENT…"
    );
    program.args = args.into_iter().map(|arg| text(arg, "argument")).collect::<Result<_>>()?;

    let workdir = request.workdir.as_ref().or(config.working_dir.as_ref()).filter(|dir| !dir.is_empty());
    let workdir = workdir.map_or_else(|| "/".to_string(), |dir| format!("/{}", dir.trim_start_matches('/')));
    let volumes = config.volumes.iter().flat_map(|volumes| volumes.keys());
    for directory in [&workdir].into_iter().chain(volumes) {
        let attributes = Attributes { permissions: 0o755, ..Attributes::default() };
        tree.make_directories(directory.as_bytes(), &attributes)
            .with_context(|| format!("{directory} is a loop of symbolic links"))?;
    }
    program.workdir = text(&workdir, "working directory")?;

    let user = user::resolve(tree, request.user.as_ref().or(config.user.as_ref()).map_or("", |user| user))?;
    let mut env: Vec<String> = config.env.clone().unwrap_or_default();
    for variable in &request.env {
        let name = name(variable).with_context(|| format!("--env {variable}: expected NAME=VALUE"))?;
        env.retain(|other| self::name(other) != Some(name));
        env.push(variable.clone());
    }
    for (missing, value) in [("PATH", PATH), ("HOME", &user.home)] {
        if !env.iter().any(|variable| name(variable) == Some(missing)) {
            env.push(format!("{missing}={value}"));
        }
    }
    program.env = env.iter().map(|variable| text(variable, "variable")).collect::<Result<_>>()?;
    program.user = user.user;

    if let Some(signal) = config.stop_signal.as_ref().filter(|signal| !signal.is_empty()) {
        program.stop = self::signal(signal).with_context(|| format!("unknown StopSignal {signal}"))?;
    }
    program.onexit = request.onexit.unwrap_or_default();
    program.ports =
        config.exposed_ports.iter().flat_map(|ports| ports.keys()).map(|port| port.clone().into()).collect();
    check(tree, &program, architecture)?;
    Ok(program)
}

/// Puts the runner and its description into a root. Returns the setting that makes `/init` execute it.
pub fn install(tree: &mut Tree, program: &Program, runner: &InitBinary) -> Setting {
    for (name, permissions, bytes) in
        [(RUNNER, 0o755, runner.bytes.clone()), (DESCRIPTION, 0o400, program.text().into())]
    {
        let attributes = Attributes { permissions, ..Attributes::default() };
        let id = tree.add(Inode { attributes, kind: Kind::File(Contents::Bytes(bytes)) });
        tree.link(Tree::ROOT, name.as_bytes(), id);
    }
    Setting { key: "init".into(), value: format!("/{RUNNER}") }
}

/// A program in one line, for people.
#[must_use]
pub fn summary(program: &Program) -> String {
    let args: Vec<String> = program.args.iter().map(|arg| shown(arg.to_bytes())).collect();
    let (args, user) = (args.join(" "), &program.user);
    let ports: Vec<_> = program.ports.iter().map(|port| String::from_utf8_lossy(port)).collect();
    let ports = if ports.is_empty() { String::new() } else { format!(", port {}", ports.join(", ")) };
    format!("{args} (user {}:{}, in {}{ports})", user.uid, user.gid, shown(program.workdir.to_bytes()))
}

/// What the configuration asks for and the runner does not do.
#[must_use]
pub fn ignored(config: &Config) -> Option<String> {
    let test = &config.healthcheck.as_ref()?.test;
    let is_set = test.first().is_some_and(|kind| kind != "NONE");
    is_set.then(|| "the image's HEALTHCHECK is ignored: the runner runs one program".into())
}

/// Whether an image says what to run at all.
#[must_use]
pub fn has_program(config: &Config) -> bool {
    config.entrypoint.iter().chain(&config.cmd).flatten().next().is_some()
}

/// Makes sure that the program exists and can be executed.
fn check(tree: &Tree, program: &Program, architecture: Option<Architecture>) -> Result<()> {
    let format = programs::of_tree(tree);
    let root = Programs { tree, program: &format, config: "", repot: true };
    let machine = architecture.map_or(Machine::UNKNOWN, Machine::of);
    let name = program.args.first().map(|arg| arg.to_bytes()).unwrap_or_default();
    let mut reasons = Vec::new();
    for path in candidates(program, name) {
        match program::test(&root, &path, None, machine) {
            Ok(()) => return Ok(()),
            Err(Why::Open(Errno::NOENT)) if !name.contains(&b'/') => {}
            Err(why) => reasons.push(Candidate { path, why: Some(why) }.account()),
        }
    }
    let name = name.escape_ascii();
    if reasons.is_empty() {
        bail!("the program \"{name}\" is in no directory of the image's PATH");
    }
    bail!("the program cannot be executed: {}", reasons.join("; "))
}

/// The absolute paths at which the runner will look for the program.
fn candidates(program: &Program, name: &[u8]) -> Vec<Vec<u8>> {
    let workdir = program.workdir.to_bytes();
    let absolute = |path: &[u8]| {
        if path.starts_with(b"/") { path.to_vec() } else { [workdir, path].join(&b'/') }
    };
    if name.contains(&b'/') {
        return vec![absolute(name)];
    }
    let path = program.env.iter().find_map(|variable| variable.to_bytes().strip_prefix(b"PATH="));
    let dirs = path.unwrap_or_default().split(|byte| *byte == b':');
    dirs.map(|dir| absolute(&[dir, name].join(&b'/'))).collect()
}

fn text(value: &str, what: &str) -> Result<CString> {
    CString::new(value).with_context(|| format!("the {what} {value:?} contains a zero byte"))
}

fn name(variable: &str) -> Option<&str> {
    variable.split_once('=').map(|(name, _)| name).filter(|name| !name.is_empty())
}

/// The number of a signal, as StopSignal has it: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
fn signal(text: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    if let Ok(number) = text.parse() {
        return Some(number).filter(|number| (1..=64).contains(number));
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(at + 1).ok();
    }
    // The C library keeps the first two of the kernel's real-time signals for itself.
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(offset), _) => (34, offset),
        (_, Some(offset)) => (64, offset),
        _ => return None,
    };
    let offset = if offset.is_empty() { 0 } else { offset.parse::<i32>().ok()? };
    Some(base + offset).filter(|number| (34..=64).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let attributes = Attributes { permissions: 0o755, ..Attributes::default() };
        let mut tree = Tree::new(attributes.clone());
        let mut file = |path: &str, text: &str| {
            let (dir, name) = path.rsplit_once('/').unwrap();
            let dir = tree.make_directories(dir.as_bytes(), &attributes).unwrap();
            let kind = Kind::File(Contents::Bytes(text.as_bytes().into()));
            let id = tree.add(Inode { attributes: attributes.clone(), kind });
            tree.link(dir, name.as_bytes(), id);
        };
        file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n");
        file("/etc/group", "root:x:0:\nweb:x:102:\naudio:x:5:games,web\nstaff:x:50:\n");
        file("/usr/bin/serve", "#!/usr/bin/serve2\n");
        file("/usr/bin/serve2", "\x7fELF");
        tree
    }

    fn config(json: &str) -> Config {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn command_line_overrides_the_image() {
        let config = config(
            r#"{"Entrypoint": ["serve"], "Cmd": ["-v"], "Env": ["A=1", "B=2"], "WorkingDir": "/data/x",
                "User": "web", "StopSignal": "SIGQUIT", "Volumes": {"/vol": {}}, "ExposedPorts": {"80/tcp": {}},
                "Labels": null}"#,
        );
        let request = Request { env: vec!["B=3".into()], user: Some("0".into()), ..Request::default() };
        let mut root = tree();
        // The program itself is no real one, so only what comes before that test is compared here.
        let error = describe(&mut root, &config, &request, None).unwrap_err().to_string();
        assert!(error.contains("/usr/bin/serve"), "{error}");
        assert!(root.resolve(b"/data/x").is_some() && root.resolve(b"/vol").is_some());
    }

    #[test]
    fn image_without_a_program_is_refused() {
        let error =
            describe(&mut tree(), &Config::default(), &Request::default(), None).unwrap_err().to_string();
        assert!(error.contains("no Entrypoint and no Cmd"), "{error}");
        assert!(!has_program(&config(r#"{"Entrypoint": null, "Cmd": []}"#)));
    }

    #[test]
    fn program_outside_the_path_is_named() {
        let config = config(r#"{"Cmd": ["nosuch"], "Env": ["PATH=/bin:/usr/bin"]}"#);
        let error = describe(&mut tree(), &config, &Request::default(), None).unwrap_err().to_string();
        assert!(error.contains("\"nosuch\" is in no directory of the image's PATH"), "{error}");
    }

    #[test]
    fn signals_have_the_kernels_numbers() {
        for (text, number) in
            [("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGSYS", 31), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)]
        {
            assert_eq!(signal(text), Some(number), "{text}");
        }
        for wrong in ["", "0", "65", "SIGNAL", "RTMIN-1", "RTMAX+1"] {
            assert_eq!(signal(wrong), None, "{wrong}");
        }
    }
}
