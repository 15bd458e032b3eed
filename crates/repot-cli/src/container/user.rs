//! The user of a container image, resolved in the image's own `/etc/passwd` and `/etc/group`.

use anyhow::{Context, Result};
use repot::run::User;

use crate::tree::{Kind, Tree};

/// A user as the program finds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) user: User,
    /// Its home directory.
    pub(super) home: String,
}

/// Resolves `USER`, `UID`, `USER:GROUP` and so on; an empty text is root. As in container engines, the
/// supplementary groups are those of `/etc/group`, unless a group is named.
pub(super) fn resolve(tree: &Tree, text: &str) -> Result<Resolved> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let (passwd, groups) = (read(tree, b"etc/passwd")?, read(tree, b"etc/group")?);
    let entry = lines(&passwd).find(|fields| fields[0] == user || fields.get(2) == Some(&user));
    let field = |at: usize| entry.as_ref().and_then(|fields| fields.get(at)).copied();
    let uid = match field(2).unwrap_or(user).parse() {
        Ok(uid) => uid,
        Err(_) => anyhow::bail!("the user \"{user}\" is not in the image's /etc/passwd"),
    };
    let mut found =
        User { uid, gid: field(3).and_then(|gid| gid.parse().ok()).unwrap_or(0), groups: Vec::new() };
    match group.filter(|group| !group.is_empty()) {
        Some(group) => {
            let entry = lines(&groups).find(|fields| fields[0] == group);
            let number = entry.as_ref().and_then(|fields| fields.get(2)).copied().unwrap_or(group);
            found.gid = number
                .parse()
                .ok()
                .with_context(|| format!("the group \"{group}\" is not in the image's /etc/group"))?;
        }
        None => {
            let is_member = |fields: &Vec<&str>| {
                fields.get(3).is_some_and(|members| {
                    field(0).is_some_and(|name| members.split(',').any(|member| member == name))
                })
            };
            let of_user = lines(&groups).filter(is_member);
            found.groups =
                of_user.filter_map(|fields| fields[2].parse().ok()).filter(|gid| *gid != found.gid).collect();
        }
    }
    let home = field(5).filter(|home| !home.is_empty()).unwrap_or("/").to_string();
    Ok(Resolved { user: found, home })
}

/// The fields of each line.
fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

/// A file of the tree; nothing if it does not exist.
fn read(tree: &Tree, path: &[u8]) -> Result<String> {
    let Some(id) = tree.resolve(path) else { return Ok(String::new()) };
    let Kind::File(contents) = &tree.inode(id).kind else { return Ok(String::new()) };
    let bytes = contents.read().with_context(|| format!("cannot read /{}", path.escape_ascii()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Attributes, Contents, Inode};

    fn tree() -> Tree {
        let attributes = Attributes { permissions: 0o755, ..Attributes::default() };
        let mut tree = Tree::new(attributes.clone());
        let etc = tree.make_directories(b"etc", &attributes).unwrap();
        for (name, text) in [
            ("passwd", "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n\nbroken\n"),
            ("group", "root:x:0:\nweb:x:102:web\naudio:x:5:games,web\nstaff:x:50:\nbroken\n"),
        ] {
            let kind = Kind::File(Contents::Bytes(text.as_bytes().into()));
            let id = tree.add(Inode { attributes: attributes.clone(), kind });
            tree.link(etc, name.as_bytes(), id);
        }
        tree
    }

    #[test]
    fn names_and_numbers_are_resolved_in_the_image() {
        let tree = tree();
        for (text, uid, gid, groups, home) in [
            ("", 0, 0, vec![], "/root"),
            ("root", 0, 0, vec![], "/root"),
            ("web", 101, 102, vec![5], "/srv"),
            ("101", 101, 102, vec![5], "/srv"),
            ("web:staff", 101, 50, vec![], "/srv"),
            ("7", 7, 0, vec![], "/"),
            ("7:8", 7, 8, vec![], "/"),
            (":5", 0, 5, vec![], "/root"),
        ] {
            let expected = Resolved { user: User { uid, gid, groups }, home: home.into() };
            assert_eq!(resolve(&tree, text).unwrap(), expected, "{text}");
        }
        assert!(resolve(&tree, "nobody").unwrap_err().to_string().contains("/etc/passwd"));
        assert!(resolve(&tree, "web:nobody").unwrap_err().to_string().contains("/etc/group"));
    }
}
