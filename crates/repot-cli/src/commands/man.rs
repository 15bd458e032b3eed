//! `repot man`: a manual page, generated from the definition of the command line.

use anyhow::Result;
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::install::{self, Base};
use crate::cli::{self, Cli};
use crate::errors::usage;
use crate::report;

/// Date of the last change to the commands.
const DATE: &str = "2026-11-24";

/// Runs the command.
pub fn run(args: &cli::Man) -> Result<()> {
    let mut program = Cli::command();
    program.build();
    if args.install {
        return install(&program, args.force);
    }
    let shown = match &args.command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).cloned();
            found.ok_or_else(|| usage(format!("unknown command {name}: see repot --help")))?
        }
    };
    report::print(&render(shown)?)
}

/// Writes the pages of the program and of each command.
fn install(program: &Command, force: bool) -> Result<()> {
    let base = Base::of_user()?;
    let folder = base.data("man/man1");
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let commands = commands.filter(|command| command.get_name() != "help");
    let pages = commands.map(|command| (format!("repot-{}.1", command.get_name()), command));
    let pages = [("repot.1".to_string(), program.clone())].into_iter().chain(pages);
    let text = |page| anyhow::Ok(format!(".\\\" {}\n{}", install::MARK, render(page)?));
    let files = pages.map(|(name, page)| Ok((folder.join(name), text(page)?)));
    install::write(&files.collect::<Result<Vec<_>>>()?, force)
}

/// The page that clap generates, with the text after the options split into sections.
fn render(command: Command) -> Result<String> {
    let title = command.get_display_name().unwrap_or_else(|| command.get_name()).to_uppercase();
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let subcommands = command.has_subcommands();
    let source = format!("repot {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command).title(title).date(DATE).source(source).manual("repot");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if subcommands {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = String::from_utf8(text)?;
    for part in after.split("\n\n") {
        match part.split_once('\n').filter(|(title, _)| matches!(*title, "Example:" | "Examples:")) {
            Some((_, lines)) => {
                roff += ".SH EXAMPLES\n.nf\n";
                lines.lines().for_each(|line| roff += &format!("{}\n", escaped(line)));
                roff += ".fi\n";
            }
            None if part.starts_with("Exit codes: ") => {
                roff +=
                    &format!(".SH \"EXIT STATUS\"\n{}\n", filled(part.trim_start_matches("Exit codes: ")));
            }
            None if !part.is_empty() => roff += &format!(".SH NOTES\n{}\n", filled(part)),
            None => {}
        }
    }
    if !subcommands {
        roff += ".SH \"EXIT STATUS\"\n0 success, 1 failure, 2 wrong usage.\n";
    }
    // mandoc -Tlint warns about two things that clap_mangen writes: blanks at the end of a line, and an
    // empty line between two breaks.
    let lines: Vec<_> = roff.lines().map(str::trim_end).collect();
    Ok(lines.join("\n").replace("\n.br\n\n.br\n", "\n.sp\n") + "\n")
}

/// Text wrapped to 76 columns and escaped for roff.
fn filled(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        if width > 0 && width + word.len() >= 76 {
            lines.push('\n');
            width = 0;
        }
        let separator = if width > 0 { " " } else { "" };
        lines += &format!("{separator}{}", if width == 0 { escaped(word) } else { word.replace('-', "\\-") });
        width += word.len() + 1;
    }
    lines
}

/// A line of text with roff escapes and requests neutralized, and hyphens that can be copied.
fn escaped(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}
