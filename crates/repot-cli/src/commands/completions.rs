//! `repot completions`: a completion script, generated from the definition of the command line.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use super::install::{self, Base};
use crate::cli::{Cli, Completions};
use crate::errors::usage;
use crate::report;

/// Runs the command.
pub fn run(args: &Completions) -> Result<()> {
    let own = || Shell::from_env().context("the shell in $SHELL is not known: name one");
    let shell = args.shell.map_or_else(own, Ok)?;
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "repot", &mut text);
    let mut text = String::from_utf8(text)?;
    if !args.install {
        return report::print(&text);
    }
    // The script of zsh must begin with #compdef.
    let end = text.find('\n').filter(|_| shell == Shell::Zsh).map_or(0, |end| end + 1);
    text.insert_str(end, &format!("# {}\n", install::MARK));
    let file = place(shell)?;
    install::write(&[(file.clone(), text)], args.force)?;
    let folder = file.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    if shell == Shell::Zsh && !rustix::process::geteuid().is_root() {
        say!("zsh looks there if ~/.zshrc has, before compinit: fpath=({folder} $fpath)");
    }
    if shell == Shell::Bash {
        say!("bash reads it in new shells if the package bash-completion is installed");
    }
    Ok(())
}

/// The file in which a shell looks for the completions of `repot`.
fn place(shell: Shell) -> Result<PathBuf> {
    let base = Base::of_user()?;
    let config = || env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Ok(match shell {
        Shell::Bash => base.data("bash-completion/completions").join("repot"),
        Shell::Zsh => base.data("zsh/site-functions").join("_repot"),
        Shell::Fish => match &base {
            Base::System => PathBuf::from("/etc/fish/completions/repot.fish"),
            Base::User(home) => {
                config().unwrap_or_else(|| home.join(".config")).join("fish/completions/repot.fish")
            }
        },
        other @ (Shell::Elvish | Shell::PowerShell | _) => {
            return Err(usage(format!("{other} has no folder for completions: print the script instead")));
        }
    })
}
