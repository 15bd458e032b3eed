//! Chooses one of several images, or lists what there is to choose from.

use anyhow::{Result, anyhow, bail};

use super::Choice;
use super::images::Image;
use super::reference::{Architecture, Reference};
use crate::container::Config;

/// Digits of a digest that are enough to name an image.
const ID: usize = 6;

/// The layers of the chosen image, and how it is run.
pub(super) fn choose(images: &[Image], choice: &Choice) -> Result<(Vec<String>, Config)> {
    let wanted = (!choice.architecture.is_empty()).then(|| Architecture::parse(&choice.architecture));
    let named: Vec<&Image> = match &choice.image {
        Some(name) => best(images.iter(), |image| names_fit(name, image, images)),
        None => images.iter().collect(),
    };
    let called = choice.image.as_ref().map_or(String::new(), |name| format!(" called {name}"));
    if named.is_empty() {
        bail!("no image{called}; it has {}", list(&images.iter().collect::<Vec<_>>()));
    }
    let fitting = best(named.iter().copied(), |image| match (&wanted, &image.architecture) {
        (Some(wanted), Some(has)) => wanted.fit(has),
        _ => Some(0),
    });
    match *fitting {
        [image] => {
            let layers = image.layers.clone().map_err(|why| anyhow!(why))?;
            Ok((layers, image.config.clone()))
        }
        [] => {
            let wanted = wanted.map_or(String::new(), |wanted| wanted.to_string());
            bail!("no image for {wanted}{called}; it has {}: choose one with --arch", list(&named))
        }
        _ => {
            let arch = fitting.iter().any(|image| image.architecture != fitting[0].architecture);
            let how = if arch { "--arch" } else { "--image" };
            bail!("several images match: {}: choose one with {how}", list(&fitting))
        }
    }
}

/// Those that fit best.
fn best<'a>(images: impl Iterator<Item = &'a Image>, fit: impl Fn(&Image) -> Option<u32>) -> Vec<&'a Image> {
    let fits: Vec<_> = images.filter_map(|image| Some((fit(image)?, image))).collect();
    let best = fits.iter().map(|(fit, _)| *fit).min();
    fits.into_iter().filter(|(fit, _)| Some(*fit) == best).map(|(_, image)| image).collect()
}

/// How well an image fits a name; the least is best.
fn names_fit(wanted: &str, image: &Image, all: &[Image]) -> Option<u32> {
    if image.names.iter().any(|name| name == wanted) {
        return Some(0);
    }
    // The start of a digest, as `docker images` shows it. A name that looks like one comes first.
    let id = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let is_id = id.len() >= ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let begins = |digest: &String| digest.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(id));
    let by_id = (is_id && image.digests.iter().any(begins)).then_some(u32::MAX);
    let wanted = Reference::parse(wanted);
    let fits = || image.names.iter().filter_map(|name| wanted.fit(&Reference::parse(name))).min();
    if let Some(digest) = &wanted.digest {
        return image.digests.contains(digest).then_some(0).or(by_id);
    }
    // A layout of one image need not name it.
    let nameless = all.iter().all(|image| image.names.is_empty());
    if nameless { Some(u32::from(by_id.is_none())) } else { fits().map(|fit| 1 + fit).or(by_id) }
}

/// The images in a message: name or digest, and architecture.
fn list(images: &[&Image]) -> String {
    if images.is_empty() {
        return "no image for Linux".into();
    }
    let one = |image: &&Image| {
        // The longest name is the full one.
        let name = image.names.iter().max_by_key(|name| name.len()).or(image.digests.last());
        let name = name.cloned().unwrap_or_else(|| "one without a name".into());
        match &image.architecture {
            Some(architecture) => format!("{name} ({architecture})"),
            None => name,
        }
    };
    images.iter().map(one).collect::<Vec<_>>().join(", ")
}
