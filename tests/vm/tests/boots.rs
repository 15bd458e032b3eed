//! All boots, one test for each: `cargo xtask boots [FILTER]`.

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each virtual machine keeps one CPU busy, so the number of CPUs of the host says little.
    let jobs = std::env::var("REPOT_VM_JOBS").ok().and_then(|jobs| jobs.parse().ok());
    arguments.test_threads = arguments.test_threads.or(jobs).or(Some(2));
    let all = std::env::var_os("REPOT_ALL_BOOTS").is_some();
    let skipped = std::env::var_os("REPOT_NO_VM").is_some();
    let boots = match repot_vm::all() {
        Ok(boots) => boots,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let trial = |boot: repot_vm::Boot| {
        let (name, long) = (boot.name.clone(), boot.long);
        Trial::test(name, || boot.run().map_err(|error| format!("{error:#}").into()))
            .with_ignored_flag(skipped || (long && !all))
    };
    libtest_mimic::run(&arguments, boots.into_iter().map(trial).collect()).exit_code()
}
