//! The options of the commands that print help: completions and manual pages.

use clap::Args;
use clap_complete::Shell;

pub(super) const COMPLETIONS: &str = "Examples:
  repot completions bash > /etc/bash_completion.d/repot
  repot completions --install                 for the shell in $SHELL
  sudo repot completions zsh --install        for all users

--install writes one file, as root below /usr/local/share or, for fish, /etc/fish, else below the home directory
($XDG_DATA_HOME, $XDG_CONFIG_HOME), and prints its name. A file of that name that repot has not written is left
alone, unless --force is given.";

pub(super) const MAN: &str = "Examples:
  repot man | man -l -
  repot man pack > repot-pack.1
  repot man --install

--install writes the pages of all commands, as root into /usr/local/share/man/man1, else into the folder of the
user ($XDG_DATA_HOME/man/man1 or ~/.local/share/man/man1), and prints their names. Files of these names that
repot has not written are left alone, unless --force is given.";

/// The options of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell [default with --install: that of $SHELL]
    #[arg(required_unless_present = "install")]
    pub shell: Option<Shell>,
    /// Write the script where the shell looks for it
    #[arg(long)]
    pub install: bool,
    /// Replace a file that repot has not written
    #[arg(long, requires = "install")]
    pub force: bool,
}

/// The options of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Print the page of this command instead of the overview
    #[arg(conflicts_with = "install")]
    pub command: Option<String>,
    /// Write all pages where man looks for them
    #[arg(long)]
    pub install: bool,
    /// Replace files that repot has not written
    #[arg(long, requires = "install")]
    pub force: bool,
}
