//! `wipe=yes`: memory that is freed in the old root is overwritten with zeros first, and everything arrives
//! all the same.
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use repot_snapshot::{Kind, difference, snapshot};
use repot_tests::intercept::{Call, Calls, Verdict};
use repot_tests::payload_image::{RULES, arrived, carried, of_several_chunks, pack, unpacked};
use repot_tests::rehome::run;
use repot_tests::sandbox::{DEADLINE, End, Running, Setup};
use repot_tests::stage::{Prepared, prepare};
use repot_tests::trees::{Fs, Plant, hostile, one_of_each};

fn prepared(fs: Fs, config: &str, tree: &[Plant]) -> Prepared {
    prepare(fs, |stage| {
        stage.install(&format!("mode=move\n{config}"));
        stage.plant(tree);
    })
}

#[test]
fn everything_arrives() {
    for fs in Fs::ALL {
        run(prepared(fs, "wipe=yes\n", &hostile()), &Setup::default()).check();
    }
}

/// How many bytes that are not zero the call frees of a file of the old root.
fn freed_unwiped(running_pid: i32, call: &Call, device: u64) -> Option<usize> {
    let file = File::open(format!("/proc/{running_pid}/fd/{}", call.args[0])).ok()?;
    let meta = file.metadata().ok().filter(|meta| meta.dev() == device && meta.is_file())?;
    let mut bytes = vec![0; usize::try_from(meta.len().checked_sub(call.args[1])?).ok()?];
    let read = file.read_at(&mut bytes, call.args[1]).ok()?;
    Some(bytes[..read].iter().filter(|&&byte| byte != 0).count())
}

/// Runs, and returns how many nonzero bytes were freed and how many files.
fn unwiped(prepared: &Prepared) -> (usize, u32) {
    let device = rustix::fs::fstat(&prepared.view).expect("the old root").st_dev;
    let setup = Setup { calls: Calls::These(vec![libc::SYS_ftruncate]), ..Setup::default() };
    let mut running: Running = prepared.start(&setup);
    let pid = running.pid().as_raw_pid();
    let (mut bytes, mut times) = (0, 0);
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        if call.number == libc::SYS_ftruncate
            && let Some(found) = freed_unwiped(pid, call, device)
        {
            bytes += found;
            times += 1;
        }
        Verdict::Continue
    });
    assert_eq!(end, End::Init("ready".into()), "{}", running.log());
    let rules = repot_tests::rehome::AFTER_BOOT;
    let now = snapshot(running.root()).expect("a snapshot");
    assert_eq!(difference(&prepared.before, &now, rules), "");
    (bytes, times)
}

#[test]
fn freed_memory_was_overwritten() {
    let prepared = prepared(Fs::Tmpfs, "threads=1\nwipe=yes\n", &one_of_each());
    let files = prepared.before.values().filter(|entry| entry.kind == Kind::File && entry.blocks > 0).count();
    let (bytes, times) = unwiped(&prepared);
    assert_eq!(bytes, 0, "bytes that were freed as they were");
    assert!(times as usize > files / 2, "{times} pieces of {files} files were freed by truncation");
}

/// The test above would notice: without the option, many nonzero bytes are freed.
#[test]
fn without_wipe_nothing_is_overwritten() {
    let (bytes, _) = unwiped(&prepared(Fs::Tmpfs, "threads=1\n", &one_of_each()));
    assert!(bytes > 1 << 20, "{bytes}");
}

/// How many bytes that are not zero the chunks of a payload have when they are removed, and the number of
/// chunks.
fn unwiped_chunks(config: &str) -> (usize, u32) {
    let packed = pack(&["mode=move", "threads=2", config], of_several_chunks);
    let prepared = unpacked(Fs::Ramfs, &[], &[&packed.image], |_| ());
    let calls = Calls::These(vec![libc::SYS_unlinkat]);
    let mut running = prepared.start(&Setup { calls, ..Setup::default() });
    let pid = running.pid().as_raw_pid();
    let (mut bytes, mut chunks) = (0, 0);
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        let name = call.text(1);
        if call.number == libc::SYS_unlinkat && !name.is_empty() && name.iter().all(u8::is_ascii_digit) {
            let path = format!("/proc/{pid}/fd/{}/{}", call.args[0], String::from_utf8_lossy(&name));
            let chunk = std::fs::read(path).expect("a chunk");
            bytes += chunk.iter().filter(|&&byte| byte != 0).count();
            chunks += 1;
        }
        Verdict::Continue
    });
    assert_eq!(end, End::Init("ready".into()), "{}", running.log());
    let after = arrived(&snapshot(running.root()).expect("a snapshot"));
    assert_eq!(difference(&carried(&packed.before), &after, RULES), "", "{}", running.log());
    (bytes, chunks)
}

#[test]
fn freed_chunks_were_overwritten() {
    let (bytes, chunks) = unwiped_chunks("wipe=yes");
    assert!(bytes == 0 && chunks > 20, "{bytes} bytes of {chunks} chunks");
    assert!(unwiped_chunks("wipe=no").0 > 1 << 20);
}
