//! Collects the archives: libarchive keeps them in its source, uuencoded; the tests of GNU tar make them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use repot_harness::command::run;
use repot_harness::{debian, place, sources};

/// The name of each set, and its archives.
pub(crate) fn all() -> Result<Vec<(&'static str, Vec<PathBuf>)>> {
    Ok(vec![("libarchive", libarchive()?), ("tar", tar()?)])
}

fn libarchive() -> Result<Vec<PathBuf>> {
    let source = only(&sources::unpacked("libarchive")?)?;
    let folder = place::fresh("archives/libarchive")?;
    for part in ["libarchive/test", "tar/test", "cpio/test"] {
        for file in super::files(&source.join(part))? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(name) = name.strip_suffix(".uu").filter(|name| is_archive(name)) else { continue };
            let bytes = uudecode(&fs::read(&file)?).with_context(|| format!("{name}.uu is not uuencoded"))?;
            fs::write(folder.join(name), bytes)?;
        }
    }
    super::files(&folder)
}

/// Whether it is a tar or cpio archive by its name. Others are archives of other kinds.
fn is_archive(name: &str) -> bool {
    let part = |wanted: &str| name.split('.').any(|part| part == wanted);
    part("tar") || part("tgz") || part("pax") || part("cpio") || name.starts_with("test_gcpio_compat_ref")
}

/// The bytes of a uuencoded text.
fn uudecode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut lines = text.split(|&byte| byte == b'\n').map(|line| line.trim_ascii_end());
    lines.find(|line| line.starts_with(b"begin "))?;
    for line in lines {
        if line == b"end" {
            return Some(bytes);
        }
        let [length, digits @ ..] = line else { continue };
        let value = |digit: Option<&u8>| digit.map_or(0, |digit| u32::from(digit.wrapping_sub(b' ') & 63));
        let end = bytes.len() + value(Some(length)) as usize;
        for group in digits.chunks(4) {
            let bits = (0..4).fold(0, |bits, at| bits << 6 | value(group.get(at)));
            bytes.extend_from_slice(&bits.to_be_bytes()[1..]);
        }
        bytes.truncate(end);
    }
    None
}

/// Runs the tests of GNU tar with a `tar` that keeps every archive that it has written.
fn tar() -> Result<Vec<PathBuf>> {
    let kept = place::kept("archives/tar")?;
    if !super::files(&kept)?.is_empty() {
        return super::files(&kept);
    }
    debian::need(&[("gcc", "gcc"), ("make", "make")])?;
    let source = only(&sources::unpacked("tar")?)?;
    let quiet = |command: &mut Command| {
        command.current_dir(&source).env("FORCE_UNSAFE_CONFIGURE", "1").stdout(Stdio::null());
        run(command)
    };
    println!("building the tests of GNU tar");
    quiet(Command::new("./configure").arg("-q"))?;
    quiet(Command::new("make").args(["-s", "-C", "gnu"]))?;
    quiet(Command::new("make").args(["-s", "-C", "tests", "genfile", "checkseekhole", "ckmtime"]))?;
    let wrapper = place::fresh("archives/wrapper")?;
    let work = place::fresh("archives/work")?;
    let script = wrapper.join("tar");
    fs::write(&script, WRAPPER)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    println!("running the tests of GNU tar");
    let mut tests = Command::new(source.join("tests/testsuite"));
    let path = format!("AUTOTEST_PATH={}:{}", wrapper.display(), source.join("tests").display());
    tests.arg(path).env("KEEP", &work).env("TAR", "tar").current_dir(source.join("tests"));
    // Some fail: they are of another version. Only their archives matter.
    tests
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot run the tests of GNU tar")?;
    keep_different(&work, &kept)?;
    super::files(&kept)
}

/// Keeps one of each archive. The same contents come from several tests.
fn keep_different(work: &Path, kept: &Path) -> Result<()> {
    let mut known: Vec<Vec<u8>> = Vec::new();
    for file in super::files(work)? {
        let bytes = fs::read(&file)?;
        if bytes.len() >= 1024 && !known.contains(&bytes) {
            fs::copy(&file, kept.join(file.file_name().unwrap_or_default()))?;
            known.push(bytes);
        }
    }
    ensure!(!known.is_empty(), "the tests of GNU tar have made no archive");
    Ok(())
}

/// Runs the tar of the system, some versions of which never end in some tests, then keeps what looks like an archive. At most 4 MiB each: the sparse ones are
/// small.
const WRAPPER: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
timeout 20 /usr/bin/tar "$@"
status=$?
test=$(pwd | sed 's|.*testsuite.dir/||; s|/.*||')
for file in *archive* *.tar *.tgz; do
    [ -f "$file" ] && [ "$(stat -c %s "$file")" -le 4194304 ] || continue
    sum=$(md5sum < "$file" | cut -c 1-8)
    cp "$file" "$KEEP/$test-$(basename "$file")-$sum" 2>/dev/null
done
exit $status
"#;

/// The only directory in a directory.
fn only(folder: &Path) -> Result<PathBuf> {
    let files = super::files(folder)?;
    files.into_iter().find(|path| path.is_dir()).with_context(|| format!("{} is empty", folder.display()))
}
