//! The runner as PID 1 of a PID namespace: what the program gets, and how its end becomes the end of all.
use std::process::Command;
use std::time::{Duration, Instant};

use repot_harness::debian;
use repot_tests::programs;
use repot_tests::sandbox::{End, Running, Setup};
use repot_tests::stage::prepare;
use repot_tests::trees::Fs;
use rustix::process::Signal;

const DEADLINE: Duration = Duration::from_secs(60);

/// Starts the runner on a root with BusyBox. `lines` follow the first line of the description.
fn start(lines: &str) -> Running {
    start_with(&format!("repot-run 1\n{lines}"), |_| ())
}

fn start_with(description: &str, build: impl FnOnce(&repot_tests::stage::Stage) + Send) -> Running {
    start_as(&["/.repot-runner"], description, build)
}

/// Starts these words, which execute the runner.
fn start_as(
    words: &[&str],
    description: &str,
    build: impl FnOnce(&repot_tests::stage::Stage) + Send,
) -> Running {
    debian::need(&[debian::BUSYBOX]).expect("BusyBox");
    let busybox = std::env::var_os("PATH")
        .and_then(|path| {
            std::env::split_paths(&path).map(|dir| dir.join("busybox")).find(|file| file.is_file())
        })
        .expect("BusyBox in PATH");
    let prepared = prepare(Fs::Tmpfs, |stage| {
        stage.program(".repot-runner", programs::repot_run());
        stage.file(".repot-run", description.as_bytes());
        stage.program("bin/busybox", &busybox);
        for applet in [
            "sh", "cat", "echo", "env", "grep", "id", "kill", "ls", "mkdir", "ps", "pwd", "readlink",
            "setsid", "sleep", "stat", "wc",
        ] {
            stage.link(&format!("bin/{applet}"), "busybox");
        }
        stage.dir("etc");
        build(stage);
    });
    prepared.start(&Setup {
        program: words[0].into(),
        argv: words.iter().map(|word| (*word).into()).collect(),
        ..Setup::default()
    })
}

/// A shell script as the program.
fn script(text: &str) -> String {
    format!("arg sh\narg -c\narg {}\n", text.replace('\\', "\\\\").replace('\n', "\\n"))
}

/// Runs until the end, and returns the exit code and everything that was printed.
fn run(mut running: Running) -> (i32, String) {
    let end = running.wait_until(DEADLINE, None, &mut |_| unreachable!());
    let End::Exited(code) = end else { panic!("{end:?}: {}", running.log()) };
    (code, running.log())
}

fn wait_for(running: &mut Running, text: &str) {
    let end = running.wait_until(DEADLINE, Some(text), &mut |_| unreachable!());
    assert_eq!(end, End::Printed, "{}", running.log());
}

#[test]
fn program_gets_its_user_directory_environment_and_session() {
    let text =
        "id; pwd; echo \"$A|$PATH|$HOME|$TERM\"; read -r line < /proc/$$/stat; echo \"stat $line\"; exit 7";
    let lines = script(text) + "env A=b\\nc\nenv PATH=/bin\nworkdir /etc\nuser 101 102 4 5\n";
    let (code, log) = run(start(&lines));
    assert_eq!(code, 7, "{log}");
    assert!(log.contains("uid=101 gid=102 groups=4,5"), "{log}");
    assert!(log.contains("\n/etc\n"), "{log}");
    assert!(log.contains("b\nc|/bin|/|linux"), "{log}");
    // The process group is the program's own, the session is that of PID 1, its parent.
    let stat = log.lines().find_map(|line| line.strip_prefix("stat ")).expect("stat");
    let mut fields = stat.split(' ');
    let pid = fields.next().expect("PID");
    let (parent, group, session) = (fields.nth(2), fields.next(), fields.next());
    assert_eq!((parent, group, session), (Some("1"), Some(pid), Some("1")), "{stat}");
}

#[test]
fn what_programs_expect_is_mounted_once() {
    let text = "cat /proc/mounts; ls -a /; stat -c %a /tmp; readlink /dev/fd; cat /etc/hosts";
    let running = start_with(&format!("repot-run 1\n{}", script(text)), |stage| {
        stage.mount(Fs::Tmpfs, "sys");
        stage.file("run/kept", b"");
    });
    let (code, log) = run(running);
    assert_eq!(code, 0, "{log}");
    for point in ["/proc proc", "/dev devtmpfs", "/dev/pts devpts", "/dev/shm tmpfs", "/dev/mqueue mqueue"] {
        assert!(log.contains(&format!(" {point} ")), "{point}: {log}");
    }
    // The image's own mount of /sys stays alone, and so does its /run.
    assert!(!log.contains(" /sys sysfs ") && !log.contains(" /run "), "{log}");
    assert!(log.contains("1777\n/proc/self/fd\n127.0.0.1\tlocalhost"), "{log}");
    // What the tool put into the image is gone.
    assert!(!log.contains(".repot"), "{log}");
}

#[test]
fn stop_signal_ends_the_program_in_its_own_way() {
    for asked in [Signal::TERM, Signal::INT, Signal::POWER] {
        let text = "trap 'echo asked; exit 3' QUIT; echo ready; while :; do sleep 0.01; done";
        let mut running = start(&(script(text) + "stop 3\n"));
        wait_for(&mut running, "ready");
        running.signal(asked);
        let (code, log) = run(running);
        assert_eq!(code, 3, "{asked:?}: {log}");
        assert!(log.contains("asked"), "{log}");
    }
}

/// The grace period begins with the first of them.
#[test]
fn asking_again_does_not_extend_the_grace_period() {
    let mut running =
        start(&(script("trap '' TERM; echo ready; while :; do sleep 0.01; done") + "grace 2\n"));
    wait_for(&mut running, "ready");
    let begun = Instant::now();
    running.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(1500));
    running.signal(Signal::INT);
    let (code, log) = run(running);
    assert_eq!(code, 137, "{log}");
    assert!(begun.elapsed() < Duration::from_millis(3400), "{:?}: {log}", begun.elapsed());
}

/// Whoever executes the runner may block signals, or ignore them. The program starts as any other.
#[test]
fn program_gets_default_signals_and_its_exit_code_is_not_lost() {
    let text = "trap '' CHLD HUP USR1 TTIN TTOU TSTP PIPE; exec /.repot-runner";
    let description = format!("repot-run 1\n{}", script("grep ^Sig /proc/self/status; exit 6"));
    let running = start_as(&["/bin/busybox", "sh", "-c", text], &description, |_| ());
    let (code, log) = run(running);
    assert_eq!(code, 6, "{log}");
    for set in ["SigBlk", "SigIgn"] {
        assert!(log.contains(&format!("{set}:\t0000000000000000\n")), "{log}");
    }
}

/// As the initial PID 1 the runner is no parent that could continue its children, so the kernel lets SIGTSTP,
/// SIGTTIN and SIGTTOU stop nothing (boot run/terminal). In a container they stop the program.
#[test]
fn program_that_is_stopped_continues_with_sigcont() {
    for signal in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
        let text = "trap 'exit 4' WINCH; main=$$
            (until ps -o pid,stat | grep -q \"^ *$main  *T\"; do sleep 0.01; done; echo stopped) &
            echo ready; while :; do sleep 0.01; done";
        let mut running = start(&script(text));
        wait_for(&mut running, "ready");
        running.signal(signal);
        wait_for(&mut running, "stopped");
        running.signal(Signal::CONT);
        running.signal(Signal::WINCH);
        let (code, log) = run(running);
        assert_eq!(code, 4, "{signal:?}: {log}");
    }
}

/// Orphans need a PID 1 that reaps them. The runner has no mode as a subreaper.
#[test]
fn only_pid_1_runs_anything() {
    let output = Command::new(programs::repot_run()).output().expect("the runner");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("this is not PID 1; nothing was done"), "{text}");
}

#[test]
fn other_signals_are_passed_on() {
    let text = "trap 'echo one' USR1; trap 'echo two; exit 0' HUP; echo ready; while :; do sleep 0.01; done";
    let mut running = start(&script(text));
    wait_for(&mut running, "ready");
    running.signal(Signal::USR1);
    wait_for(&mut running, "one");
    running.signal(Signal::HUP);
    let (code, log) = run(running);
    assert_eq!((code, log.contains("two")), (0, true), "{log}");
}

#[test]
fn program_that_ignores_the_stop_signal_is_killed_after_the_grace_period() {
    let mut running =
        start(&(script("trap '' TERM; echo ready; while :; do sleep 0.01; done") + "grace 1\n"));
    wait_for(&mut running, "ready");
    running.signal(Signal::TERM);
    let (code, log) = run(running);
    assert_eq!(code, 137, "{log}");
    assert!(log.contains("not ended within 1 s; killing it"), "{log}");
}

#[test]
fn stopped_program_is_continued_when_it_is_asked_to_end() {
    let mut running = start(&script("echo ready; kill -STOP $$; echo continued; sleep 1000"));
    wait_for(&mut running, "ready");
    running.signal(Signal::TERM);
    let (code, log) = run(running);
    assert_eq!(code, 143, "{log}");
}

/// Also the real-time signals, the last included. The shell itself needs SIGCHLD, and SIGALRM ends it.
#[test]
fn every_signal_is_passed_on() {
    let signals = [1, 3, 10, 12, 20, 21, 22, 28, 29, 34, 35, 50, 63, 64];
    let list = signals.map(|signal| signal.to_string()).join(" ");
    let text = format!(
        "for s in {list}; do trap \"echo got $s.\" $s; done; trap 'exit 0' TERM; echo ready; \
         while :; do sleep 0.01; done"
    );
    let mut running = start(&script(&text));
    wait_for(&mut running, "ready");
    for signal in signals {
        let pid = running.pid().as_raw_pid().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill(1)");
        assert!(sent.success(), "{signal}");
        wait_for(&mut running, &format!("got {signal}."));
    }
    running.signal(Signal::TERM);
    let (code, log) = run(running);
    assert_eq!(code, 0, "{log}");
}

#[test]
fn death_by_a_signal_is_128_and_its_number() {
    for signal in [1, 6, 9, 11, 15, 34, 64] {
        let (code, log) = run(start(&script(&format!("kill -{signal} $$"))));
        assert_eq!(code, 128 + signal, "{log}");
        assert!(log.contains(&format!("was killed by signal {signal}")), "{log}");
    }
    for code in [0, 1, 124, 128, 255] {
        assert_eq!(run(start(&script(&format!("exit {code}")))).0, code);
    }
}

/// A process that is stopped takes no SIGTERM until it continues.
#[test]
fn stopped_and_orphaned_processes_end_before_the_grace_period() {
    let text = "
        setsid sh -c 'kill -STOP $$; sleep 1000' &
        (sh -c 'kill -STOP $$; sleep 1000' &)
        while [ $(ps -o stat | grep -c ^T) -lt 2 ]; do sleep 0.01; done
        echo stopped; exit 6";
    let begun = std::time::Instant::now();
    let (code, log) = run(start(&(script(text) + "grace 50\n")));
    assert_eq!(code, 6, "{log}");
    assert!(begun.elapsed() < Duration::from_secs(45), "waited for the grace period: {log}");
}

#[test]
fn program_that_closes_its_streams_ends_as_any_other() {
    let (code, log) = run(start(&script("exec 0<&- 1>&- 2>&-; exit 8")));
    assert_eq!(code, 8, "{log}");
}

#[test]
fn environment_of_a_megabyte_is_passed_on() {
    let variables: String =
        (0..10_000).map(|number| format!("env V{number}={}\n", "x".repeat(100))).collect();
    let (code, log) = run(start(&(script("env | grep -c '^V.*=x'; env | wc -c") + &variables)));
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("10000\n"), "{log}");
}

/// The bar of the memory of PID 1 while the program runs.
#[test]
fn pid_1_takes_at_most_300_kib() {
    let (code, log) = run(start(&script("cat /proc/1/status")));
    assert_eq!(code, 0, "{log}");
    let field = log.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: u64 = field.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib <= 300, "{kib} KiB");
}

/// Orphans whose children end while nobody waits for them, some of them in sessions of their own.
#[test]
fn orphans_are_reaped() {
    let text = "
        for i in 1 2 3 4 5 6 7 8; do
            sh -c 'sh -c \"sleep 0.01 & exit 0\" & exit 0' &
            setsid sh -c 'setsid sh -c \"sleep 0.01 & exit 0\" & exit 0' &
        done
        wait
        while ps -o stat,args | grep -q '^Z'; do sleep 0.01; done
        while ps -o args | grep -q '^sleep 0.0[1]'; do sleep 0.001; done
        ps -o stat,args";
    let (code, log) = run(start(&script(text)));
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("STAT"), "{log}");
    assert!(!log.lines().any(|line| line.starts_with('Z')), "zombies: {log}");
}

#[test]
fn processes_that_are_left_are_ended_with_the_program() {
    let text = "(trap 'echo asked' TERM; : > /left; while :; do sleep 0.1; done) & sleep 1000 & \
                until test -e /left; do sleep 0.05; done; exit 4";
    let begun = Instant::now();
    let (code, log) = run(start(&(script(text) + "grace 1\n")));
    assert_eq!(code, 4, "{log}");
    // Asked first, and killed when the time is over.
    assert!(log.contains("asked") && begun.elapsed() >= Duration::from_secs(1), "{log}");
}

/// A process that forks faster than it can be killed one by one.
#[test]
fn program_that_forks_for_ever_is_ended() {
    let text = "f() { (f) & }; trap '' TERM; f; sleep 0.2; exit 9";
    let (code, log) = run(start(&(script(text) + "grace 1\n")));
    assert_eq!(code, 9, "{log}");
}

#[test]
fn program_that_cannot_start_is_named_with_the_exit_code_of_a_shell() {
    for (lines, code, why) in [
        ("arg nosuch\n", 127, "execve \"nosuch\": ENOENT"),
        ("arg /bin/nosuch\n", 127, "execve \"/bin/nosuch\": ENOENT"),
        ("arg /etc\n", 126, "execve \"/etc\": EACCES"),
        ("arg /etc/text\n", 126, "execve \"/etc/text\": ENOEXEC"),
        ("arg sh\nworkdir /nowhere\n", 127, "chdir \"/nowhere\": ENOENT"),
    ] {
        let running = start_with(&format!("repot-run 1\n{lines}"), |stage| {
            stage.program("etc/text", std::path::Path::new("/etc/hostname"));
        });
        let (seen, log) = run(running);
        assert_eq!(seen, code, "{lines}: {log}");
        assert!(log.contains(why), "{lines}: {log}");
    }
}

#[test]
fn environment_that_the_kernel_refuses_is_reported() {
    let lines = format!("arg sh\nenv BIG={}\n", "x".repeat(1 << 20));
    let (code, log) = run(start(&lines));
    assert_eq!(code, 126, "{log}");
    assert!(log.contains("execve \"sh\": E2BIG"), "{log}");
}

#[test]
fn description_that_cannot_be_used_is_reported_by_line() {
    let (code, log) = run(start_with("repot-run 2\narg sh\n", |_| ()));
    assert_eq!(code, 125, "{log}");
    assert!(log.contains("/.repot-run:1: expected \"repot-run 1\", found \"repot-run 2\""), "{log}");
    let (code, log) = run(start("arg sh\ncolor red\n"));
    assert_eq!(code, 125, "{log}");
    assert!(log.contains("/.repot-run:3: unknown key \"color\""), "{log}");
}

#[test]
fn exit_code_is_written_where_it_is_asked_for() {
    let text = "exit 5";
    let (code, log) = run(start(&(script(text) + "exit /dev/nosuch\n")));
    assert_eq!(code, 5, "{log}");
    assert!(log.contains("exit code not written to \"/dev/nosuch\": ENOENT"), "{log}");
    // The standard output of the runner is the test's pipe.
    let (code, log) = run(start(&(script(text) + "exit /proc/1/fd/1\n")));
    assert_eq!(code, 5, "{log}");
    assert!(log.contains("\n5\n") || log.starts_with("5\n"), "{log}");
}

#[test]
fn program_is_started_again_until_somebody_asks_for_the_end() {
    let text =
        "echo run >> /tmp/runs; cat /tmp/runs | while read l; do echo -n +; done; echo ' up'; sleep 0.05";
    let mut running = start(&(script(text) + "onexit restart\n"));
    wait_for(&mut running, "++ up");
    running.signal(Signal::TERM);
    let (_, log) = run(running);
    assert!(log.contains("exited with 0"), "{log}");
}

#[test]
fn program_that_exits_at_once_is_started_once_a_second() {
    let begun = Instant::now();
    let mut running =
        start(&(script("echo x >> /tmp/runs; echo runs $(wc -l < /tmp/runs)") + "onexit restart\n"));
    wait_for(&mut running, "runs 3");
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    running.signal(Signal::TERM);
    let (_, log) = run(running);
    assert!(!log.contains("runs 5"), "{log}");
}
