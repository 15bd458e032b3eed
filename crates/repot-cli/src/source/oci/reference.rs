//! Names of container images, as docker and podman take them: `busybox` is short for
//! `docker.io/library/busybox:latest`.

/// A name in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// Registry and path.
    repository: String,
    tag: Option<String>,
    pub(super) digest: Option<String>,
}

impl Reference {
    /// Splits a name. A digest alone has no repository.
    pub(super) fn parse(name: &str) -> Reference {
        if name.starts_with("sha256:") {
            return Reference { repository: String::new(), tag: None, digest: Some(name.into()) };
        }
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => (name, Some(digest.to_string())),
            None => (name, None),
        };
        // A colon before a slash is that of a port.
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_string())),
            _ => (name, None),
        };
        Reference { repository: whole(path), tag, digest }
    }

    /// How well another name, which an image has, fits this one; the least is best. `None` if it does not.
    pub(super) fn fit(&self, has: &Reference) -> Option<u32> {
        let repository = if self.repository.is_empty() || self.repository == has.repository {
            0
        } else if ends_with(&has.repository, short(&self.repository)) {
            // The end of a path is enough where it is not ambiguous: podman's localhost/x is found as x.
            2
        } else {
            return None;
        };
        let tag = match (&self.tag, has.tag.as_deref().unwrap_or("latest")) {
            (None, "latest") => 0,
            // Without a tag, another one fits if there is no latest.
            (None, _) => 1,
            (Some(tag), has) if tag == has => 0,
            (Some(_), _) => return None,
        };
        Some(repository + tag)
    }
}

/// Registry and path in full.
fn whole(path: &str) -> String {
    let first = path.split('/').next().unwrap_or_default();
    let registry = path.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    match path {
        "" => String::new(),
        path if registry => path.replacen("index.docker.io/", "docker.io/", 1),
        path if path.contains('/') => format!("docker.io/{path}"),
        path => format!("docker.io/library/{path}"),
    }
}

/// The path as the user would shorten it.
fn short(repository: &str) -> &str {
    let path = repository.strip_prefix("docker.io/").unwrap_or(repository);
    path.strip_prefix("library/").unwrap_or(path)
}

fn ends_with(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|before| before.ends_with('/'))
}

/// An architecture with its variant, such as `arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Architecture {
    pub(super) name: String,
    pub(super) variant: Option<String>,
}

impl Architecture {
    pub(super) fn parse(text: &str) -> Architecture {
        let text = text.strip_prefix("linux/").unwrap_or(text);
        // What uname(1) and Debian call them.
        let text = match text {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "i386" | "i686" => "386",
            "armhf" | "armv7l" => "arm/v7",
            "armel" | "armv6l" => "arm/v6",
            text => text,
        };
        match text.split_once('/') {
            Some((name, variant)) => Architecture { name: name.into(), variant: Some(variant.into()) },
            None => Architecture { name: text.into(), variant: None },
        }
    }

    /// The variant of images that name none: the only one of `arm64`, the first of `amd64`.
    fn basic(&self) -> Option<&str> {
        match &*self.name {
            "amd64" => Some("v1"),
            "arm64" => Some("v8"),
            _ => None,
        }
    }

    /// How well an image fits; the least is best. `None` if it does not.
    pub(super) fn fit(&self, has: &Architecture) -> Option<u32> {
        if self.name != has.name {
            return None;
        }
        let has = has.variant.as_deref().or(self.basic());
        match self.variant.as_deref() {
            Some(wanted) => (Some(wanted) == has).then_some(0),
            None if has == self.basic() => Some(0),
            // Not basic: `arm` fits `arm/v6` and `arm/v7` alike.
            None => Some(1),
        }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "linux/{}", self.name)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_full_names_are_one_image() {
        let fit = |wanted: &str, has: &str| Reference::parse(wanted).fit(&Reference::parse(has));
        let full = "docker.io/library/busybox:latest";
        for name in ["busybox", "busybox:latest", "library/busybox", "docker.io/library/busybox", full] {
            assert_eq!(fit(name, full), Some(0), "{name}");
        }
        assert_eq!(fit("busybox:1", full), None);
        assert_eq!(fit("busybox", "busybox:1.36"), Some(1));
        assert_eq!(fit("x:1", "localhost/x:1"), Some(2));
        assert_eq!(fit("x:1", "localhost:5000/a/x:1"), Some(2));
        assert_eq!(fit("box", full), None);
        assert_eq!(fit("localhost:5000/x", "localhost:5000/x:latest"), Some(0));
        let digest = Reference::parse("busybox@sha256:ab");
        assert_eq!(digest.digest.as_deref(), Some("sha256:ab"));
        assert_eq!(digest.fit(&Reference::parse("busybox:7")), Some(1));
    }

    #[test]
    fn variants_fit_if_they_are_named_or_the_basic_one() {
        let fit = |wanted: &str, has: &str| Architecture::parse(wanted).fit(&Architecture::parse(has));
        assert_eq!(fit("arm/v7", "arm/v7"), Some(0));
        assert_eq!(fit("arm/v7", "arm/v6"), None);
        assert_eq!(fit("arm", "arm/v6"), Some(1));
        assert_eq!(fit("arm64", "arm64/v8"), Some(0));
        assert_eq!(fit("arm64/v8", "arm64"), Some(0));
        assert_eq!(fit("amd64", "amd64/v3"), Some(1));
        assert_eq!(fit("linux/amd64", "amd64"), Some(0));
        assert_eq!(fit("amd64", "arm64"), None);
    }
}
