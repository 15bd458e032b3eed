//! Surveys that run in parallel, as a program with the library may start them.

use repot::survey::survey;
use rustix::fd::AsFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::{self, File};
use std::path::PathBuf;
use std::thread;

/// A tree that is removed when dropped.
struct Tree(PathBuf);

impl Tree {
    fn plant() -> Tree {
        let root = std::env::temp_dir().join(format!("repot-survey-{}", std::process::id()));
        for directory in 0..20 {
            let directory = root.join(format!("{directory}/below"));
            fs::create_dir_all(&directory).unwrap();
            (0..20).for_each(|file| drop(File::create(directory.join(file.to_string())).unwrap()));
        }
        Tree(root)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn surveys_in_parallel_do_not_disturb_one_another() {
    let tree = Tree::plant();
    let root =
        openat(CWD, tree.0.to_str().unwrap(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..30 {
                    let found = survey(root.as_fd(), 3).unwrap();
                    assert_eq!((found.entries, found.directories), (20 * 22, 40));
                }
            });
        }
    });
}
