//! Every `cargo xtask` command that the workflows and the documents name exists, with its options. Addresses
//! agree.

use crate::Arguments;
use clap::Parser;
use repot_harness::place;
use std::fs;
use std::path::{Path, PathBuf};

/// The files of the checkout that name commands.
fn files() -> Vec<PathBuf> {
    let top = place::checkout();
    let mut files = Vec::new();
    for folder in ["", ".ci", ".github/workflows", "docs", "docs/tool", "docs/bench", "tests", "packaging"] {
        files.extend(entries(&top.join(folder)));
    }
    for folder in entries(&top.join("packaging")).into_iter().filter(|path| path.is_dir()) {
        files.extend(entries(&folder));
    }
    let names = |path: &PathBuf| {
        let end = path.extension().unwrap_or_default();
        path.is_file() && (end == "md" || end == "yml" || end == "sh" || path.ends_with(".ci/run"))
    };
    files.retain(names);
    files
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .expect("a folder of the checkout")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// The words behind each `cargo xtask` of a text, up to the end of the command.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let rest = text.split("cargo xtask ").skip(1);
    rest.map(|rest| {
        let end = rest.find(['`', '\n', '#', '<', '|', ';', ')', '"', '&']).unwrap_or(rest.len());
        rest[..end].split_ascii_whitespace().collect()
    })
    .collect()
}

/// Whether the words are a command. What the reader fills in has capitals.
fn parses(words: &[&str]) -> Result<(), clap::Error> {
    let filled = words.iter().map(|word| match *word {
        "ARCH" => "x86_64",
        list => list.trim_end_matches(",…"),
    });
    match Arguments::try_parse_from(["cargo xtask"].into_iter().chain(filled)) {
        Err(error) if error.kind() != clap::error::ErrorKind::DisplayHelp => Err(error),
        _ => Ok(()),
    }
}

#[test]
fn every_command_of_the_workflows_and_documents_exists() {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for path in files() {
        let text = fs::read_to_string(&path).expect("a text");
        let name = place::short(&path);
        for words in commands(&text) {
            if let Err(error) = parses(&words) {
                wrong.push(format!("{name}: cargo xtask {}: {error}", words.join(" ")));
            }
            found.push(format!("{name}: {}", words.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for known in [
        ".ci/run: lint",
        ".ci/run: test",
        ".github/workflows/ci.yml: test",
        ".github/workflows/release.yml: reproduce",
        ".github/workflows/release.yml: release",
    ] {
        assert!(found.iter().any(|line| line == known), "{known} is not among {found:#?}");
    }
}

#[test]
fn an_unknown_command_or_option_is_found() {
    for text in ["cargo xtask relase", "`cargo xtask dist --arch vax`", "cargo xtask test --no-vms # fast"] {
        assert!(parses(&commands(text)[0]).is_err(), "{text}");
    }
    assert!(parses(&commands("cargo xtask dist --arch ARCH` writes")[0]).is_ok());
}

/// Everything else takes the address from the workspace.
#[test]
fn the_recipe_for_yocto_has_the_address_of_the_workspace() {
    let folder = place::checkout().join("packaging/yocto/recipes-core/repot-init");
    let recipe = entries(&folder).into_iter().find(|path| path.extension().is_some_and(|end| end == "bb"));
    let text = fs::read_to_string(recipe.expect("a recipe")).expect("a text");
    let address = env!("CARGO_PKG_REPOSITORY");
    for wanted in [format!("HOMEPAGE = \"{address}\""), format!("BUGTRACKER = \"{address}/issues\"")] {
        assert!(text.lines().any(|line| line == wanted), "the recipe lacks the line {wanted}");
    }
}
