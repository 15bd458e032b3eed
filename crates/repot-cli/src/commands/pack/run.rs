//! `pack --run`: an image that runs one program.

use anyhow::Result;
use repot::facts::program::Architecture;

use crate::cli::Pack;
use crate::container::{self, Request};
use crate::image::config::Setting;
use crate::init_binary;
use crate::programs;
use crate::source::Source;

/// Adds the runner to the root and to the settings if it is asked for, or if a container image has a program
/// and no init. Returns the program in one line.
pub(super) fn install(
    args: &Pack,
    source: &mut Source,
    target: Option<Architecture>,
    settings: &mut Vec<Setting>,
) -> Result<Option<String>> {
    let options = &args.program;
    let config = source.config.clone().unwrap_or_default();
    let asked = options.run || !options.args.is_empty();
    if !asked {
        let chosen = options.no_run || settings.iter().any(|setting| setting.key == "init");
        if chosen || !container::has_program(&config) {
            return Ok(None);
        }
        if let Some(init) = programs::init_of(&source.tree) {
            source.warnings.push(format!(
                "the image boots its init {init}: its own program needs --run (or --no-run: no warning)"
            ));
            return Ok(None);
        }
    }
    let request = Request {
        args: options.args.clone(),
        env: options.env.clone(),
        workdir: options.workdir.clone(),
        user: options.user.clone(),
        onexit: options.onexit,
    };
    let runner = init_binary::find_runner(target)?;
    source.warnings.extend(runner.warning.clone());
    let program = container::describe(&mut source.tree, &config, &request, runner.architecture)?;
    source.warnings.extend(container::ignored(&config));
    settings.retain(|setting| setting.key != "init");
    settings.push(container::install(&mut source.tree, &program, &runner));
    Ok(Some(container::summary(&program)))
}
