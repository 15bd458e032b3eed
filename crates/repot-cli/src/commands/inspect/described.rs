//! The program that an image runs, as `inspect` shows it.

use std::fmt;

use repot::run::Program;
use serde::Serialize;

use crate::container;
use crate::survey::Survey;
use crate::survey::spool::Root;

/// The description of the program. Bytes that are not UTF-8 are replaced.
#[derive(Debug, Serialize)]
pub(super) struct Described {
    args: Vec<String>,
    env: Vec<String>,
    workdir: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    hostname: Option<String>,
    stop: i32,
    grace: u32,
    onexit: &'static str,
    exit: String,
    ports: Vec<String>,
    shares: Vec<String>,
    #[serde(skip)]
    summary: String,
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)
    }
}

/// Describes the program of an image, if it has one. What is wrong with the description is a problem.
pub(super) fn read(survey: &Survey, root: Option<&Root>, problems: &mut Vec<String>) -> Option<Described> {
    match survey.described(root)? {
        Ok(program) => Some(Described::of(&program)),
        Err(why) => {
            problems.push(format!("the runner has no program: {why}"));
            None
        }
    }
}

impl Described {
    fn of(program: &Program) -> Described {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Described {
            args: program.args.iter().map(|arg| text(arg.to_bytes())).collect(),
            env: program.env.iter().map(|variable| text(variable.to_bytes())).collect(),
            workdir: text(program.workdir.to_bytes()),
            uid: program.user.uid,
            gid: program.user.gid,
            groups: program.user.groups.clone(),
            hostname: program.hostname.as_deref().map(text),
            stop: program.stop,
            grace: program.grace,
            onexit: program.onexit.name(),
            exit: text(&program.exit),
            ports: program.ports.iter().map(|port| text(port)).collect(),
            shares: program.shares.iter().map(|share| text(&share.text())).collect(),
            summary: container::summary(program),
        }
    }
}
