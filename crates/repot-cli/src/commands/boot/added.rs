//! What `boot` adds behind a copy of the image: with `--exec` the runner and a description of another
//! program; the drivers of the network card and of shared directories.

use std::ffi::CString;
use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use repot::facts::program::Architecture;
use repot::options::{Options, cmdline};
use repot::run::{DESCRIPTION, OnExit, Program, RUNNER};
use tempfile::TempDir;

use super::drivers::Folder;
use crate::cli::Boot;
use crate::commands::append;
use crate::init_binary;
use crate::modules::Modules;
use crate::survey::{Survey, segments};

/// The image with the addition, which is removed with this value.
#[derive(Debug)]
pub(super) struct Image {
    directory: TempDir,
    /// The parameters that make the runner the init, and keep the console for the program.
    pub(super) parameters: Option<String>,
}

impl Image {
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }
}

/// What became of the image.
#[derive(Debug)]
pub(super) struct Added {
    /// The copy; `None` if the image needs no addition.
    pub(super) image: Option<Image>,
    /// Whether the runner is the init.
    pub(super) has_runner: bool,
}

/// Copies the image and adds what it needs: with `--exec` another program, and these drivers.
pub(super) fn image(args: &Boot, folder: Option<&Folder>, drivers: &[&str]) -> Result<Added> {
    if args.exec.is_none() && drivers.is_empty() {
        return Ok(Added { image: None, has_runner: false });
    }
    let shown = || args.image.display().to_string();
    let mut input = File::open(&args.image).with_context(shown)?;
    let mut survey = Survey::default();
    segments::read(&mut input, &mut survey).with_context(shown)?;
    let root = survey.unpacked(4096).transpose().with_context(shown)?;
    let own =
        survey.described(root.as_ref()).transpose().map_err(|why| anyhow::anyhow!("{}: {why}", shown()))?;
    // Without the runner, drivers are the business of the image's own init.
    let has_runner = own.is_some() || args.exec.is_some();
    if has_runner && !drivers.is_empty() && folder.is_none() {
        say!(
            "warning: the modules of this kernel are neither beside it nor in /lib/modules, so it must have \
             these drivers built in: {}",
            drivers.join(", ")
        );
    }
    let folder = folder.filter(|_| has_runner && !drivers.is_empty());
    let modules = folder.and_then(|folder| modules(args, &survey, folder, drivers));

    let mut members = Vec::new();
    let mut parameters = None;
    if let Some(command) = &args.exec {
        members.extend(program(own.unwrap_or_default(), command, survey.architecture())?);
        parameters = Some(self::parameters(&survey)?);
    }
    members.extend(modules.iter().flat_map(files));
    if members.is_empty() {
        return Ok(Added { image: None, has_runner });
    }
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let made = Image { directory, parameters };
    append::members(&mut input, &mut survey, &members, &made.path()).with_context(shown)?;
    Ok(Added { image: Some(made), has_runner })
}

/// A path, a mode and contents.
pub(in crate::commands) type Member = (String, u32, Vec<u8>);

/// The runner and its program, with the environment, the user and the directory of the image's own program.
fn program(mut program: Program, command: &str, target: Option<Architecture>) -> Result<[Member; 2]> {
    program.args = words(command).with_context(|| format!("--exec {command:?}"))?;
    ensure!(!program.args.is_empty(), "--exec names no program");
    program.onexit = OnExit::Poweroff;
    let runner = init_binary::find_runner(target)?;
    Ok([(RUNNER.into(), 0o100_755, runner.bytes.to_vec()), (DESCRIPTION.into(), 0o100_400, program.text())])
}

/// The files of the modules, and their folders.
fn files(modules: &Modules) -> Vec<Member> {
    let folder = format!("{}/{}", modules.directory(), modules.release);
    let folders = [modules.directory(), &folder].map(|folder| (folder.to_owned(), 0o040_700, Vec::new()));
    let files =
        modules.members().map(|(name, contents)| (format!("{folder}/{name}"), 0o100_400, contents.to_vec()));
    folders.into_iter().chain(files).collect()
}

/// The modules of the drivers, unless all are built in or there is a reason against them, which is printed.
fn modules(args: &Boot, survey: &Survey, folder: &Folder, drivers: &[&str]) -> Option<Modules> {
    let line = args.append.join(" ");
    let options = Options::read(Some(survey.config().as_bytes()), &cmdline::parse(line.as_bytes()));
    let found = match folder.modules(drivers) {
        Ok(found) => Some(found).filter(|found| !found.names.is_empty())?,
        Err(error) => {
            say!("warning: {error:#}");
            return None;
        }
    };
    if options.payload.iter().any(Option::is_some) {
        say!(
            "warning: the payload is pinned by its digest (payload=), so drivers cannot be added: {}",
            found.names.join(", ")
        );
        return None;
    }
    Some(found)
}

/// How the runner becomes the init: by /init if that is repot, else by the kernel.
fn parameters(survey: &Survey) -> Result<String> {
    // What the kernel logs would stand between the lines of the program.
    let quiet = "quiet loglevel=0";
    if !survey.repot() {
        return Ok(format!("rdinit=/{RUNNER} {quiet}"));
    }
    let parameter = format!("repot.init=/{RUNNER}");
    let options = Options::read(Some(survey.config().as_bytes()), &cmdline::parse(parameter.as_bytes()));
    ensure!(
        options.init.as_deref() == Some(format!("/{RUNNER}").as_bytes()),
        "the image ignores the command line (cmdline=ignore), so --exec cannot choose its program"
    );
    Ok(format!("{parameter} {quiet}"))
}

/// Splits a command into words, as a shell does: quotes and backslashes keep blanks together. Nothing is
/// expanded.
fn words(command: &str) -> Result<Vec<CString>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = command.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, ' ' | '\t' | '\n') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == letter => quote = None,
            (None | Some('"'), '\\') => {
                let next = letters.next().context("nothing follows the backslash at the end")?;
                let word = word.get_or_insert_default();
                // Between double quotes a backslash is one, unless it protects another sign.
                if quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if let Some(quote) = quote {
        bail!("the quote {quote} is not closed");
    }
    words.extend(word);
    words.into_iter().map(|word| CString::new(word).context("a zero byte")).collect()
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn commands_are_split_as_by_a_shell() {
        for (command, expected) in [
            ("", vec![]),
            (" ls  -l\t/ ", vec!["ls", "-l", "/"]),
            ("sh -c 'echo \"a b\"; exit 3'", vec!["sh", "-c", "echo \"a b\"; exit 3"]),
            ("a\"b c\"'d'e \"\" '' x", vec!["ab cde", "", "", "x"]),
            (r#"a\ b "\"\\\n$" '\n'"#, vec!["a b", r#""\\n$"#, r"\n"]),
        ] {
            let split = words(command).unwrap();
            assert_eq!(
                split.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>(),
                expected,
                "{command}"
            );
        }
        for wrong in ["'a", "\"a'", "a\\", "a\0"] {
            assert!(words(wrong).is_err(), "{wrong:?}");
        }
    }
}
