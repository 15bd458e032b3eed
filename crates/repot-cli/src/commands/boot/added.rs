//! `boot --exec`: one program instead of the image's own. A segment behind a copy of the image adds the
//! runner and a description of the program.

use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use repot::options::{Options, cmdline};
use repot::run::{DESCRIPTION, OnExit, RUNNER};
use tempfile::TempDir;

use crate::commands::append;
use crate::init_binary;
use crate::survey::{Survey, segments};

/// The image with the program, which is removed with this value.
#[derive(Debug)]
pub(super) struct Image {
    directory: TempDir,
    /// The parameters that make the runner the init, and keep the console for the program.
    pub(super) parameters: String,
}

impl Image {
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }
}

/// Copies the image and adds the program. It gets the environment, the user and the directory of the image's
/// own program, if there is one.
pub(super) fn image(image: &Path, command: &str) -> Result<Image> {
    let shown = || image.display().to_string();
    let args = words(command).with_context(|| format!("--exec {command:?}"))?;
    ensure!(!args.is_empty(), "--exec names no program");
    let mut input = File::open(image).with_context(shown)?;
    let mut survey = Survey::default();
    segments::read(&mut input, &mut survey).with_context(shown)?;
    let root = survey.unpacked().transpose().with_context(shown)?;
    let own =
        survey.described(root.as_ref()).transpose().map_err(|why| anyhow::anyhow!("{}: {why}", shown()))?;
    let mut program = own.unwrap_or_default();
    program.args = args;
    program.onexit = OnExit::Poweroff;
    let parameters = parameters(&survey)?;

    let runner = init_binary::find_runner()?;
    let text = program.text();
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let made = Image { directory, parameters };
    let members = [(RUNNER, 0o100_755, &*runner.bytes), (DESCRIPTION, 0o100_400, &text)];
    append::members(&mut input, &mut survey, &members, &made.path()).with_context(shown)?;
    Ok(made)
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
