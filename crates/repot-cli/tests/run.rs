//! Images that run one program: what `pack --run` makes of a container image's configuration.

mod support;

use std::fs;

use sha2::{Digest, Sha256};
use support::{Work, tar, text};
use tar::EntryType::{Directory, Regular};

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n";

/// A layout of one image with a static program, users, more files, and this configuration.
fn layout(work: &Work, files: &[(&str, &str)], config: &serde_json::Value) {
    let program = work.read("init");
    let program = String::from_utf8_lossy(&program);
    let mut members = vec![
        ("etc/passwd", Regular, PASSWD),
        ("etc/group", Regular, "web:x:102:\naudio:x:5:web\n"),
        ("usr/bin/serve", Regular, &*program),
        ("tmp/", Directory, ""),
    ];
    members.extend(files.iter().map(|(name, contents)| (*name, Regular, *contents)));
    fs::create_dir_all(work.path("oci/blobs/sha256")).unwrap();
    let blob = |bytes: &[u8]| {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(work.path("oci/blobs/sha256").join(&hex), bytes).unwrap();
        serde_json::json!({"digest": format!("sha256:{hex}"), "size": 1})
    };
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": config});
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": blob(config.to_string().as_bytes()),
        "layers": [blob(&tar(&members))],
    });
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [blob(manifest.to_string().as_bytes())]});
    fs::write(work.path("oci/index.json"), index.to_string()).unwrap();
    fs::write(work.path("oci/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// One file of an image.
fn file(work: &Work, image: &str, path: &str) -> String {
    let words =
        format!("mkdir -p out && cd out && zstd -dc ../{image} | cpio -idu --quiet {path} && cat {path}");
    text(&work.run("sh", &["-c", &words]))
}

#[test]
fn container_image_without_an_init_runs_its_program() {
    let work = Work::new();
    let config = serde_json::json!({
        "Entrypoint": ["serve"], "Cmd": ["-g", "daemon off;"], "Env": ["PATH=/usr/bin", "TEXT=a\nb"],
        "WorkingDir": "/data", "User": "web", "StopSignal": "SIGQUIT", "Volumes": {"/vol/deep": {}},
        "ExposedPorts": {"80/tcp": {}}, "Labels": {"a": "b"},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5},
    });
    layout(&work, &[], &config);
    let shown = work.done(&["pack", "oci", "-o", "image", "--arch", "amd64"]);
    assert!(shown.contains("serve -g daemon off; (user 101:102, in /data, port 80/tcp)"), "{shown}");
    assert!(shown.contains("warning: the image's HEALTHCHECK is ignored"), "{shown}");
    let expected = "repot-run 1\narg serve\narg -g\narg daemon off;\nenv PATH=/usr/bin\nenv TEXT=a\\nb\nenv HOME=/srv\n\
                    workdir /data\nuser 101 102 5\nstop 3\ngrace 10\nonexit poweroff\nport 80/tcp\n";
    assert_eq!(file(&work, "image", ".repot-run"), expected);
    assert_eq!(file(&work, "image", "etc/repot.conf"), "init=/.repot-runner\n");
    let names = text(&work.run("sh", &["-c", "zstd -dc image | cpio -t --quiet"]));
    for name in ["data", "vol/deep", ".repot-runner"] {
        assert!(names.lines().any(|line| line == name), "{name}: {names}");
    }
}

#[test]
fn inspect_shows_the_program_also_in_a_payload() {
    let work = Work::new();
    work.init_with_payload();
    let config =
        serde_json::json!({"Cmd": ["serve", "a b"], "User": "web", "StopSignal": "3", "Env": ["A=1"]});
    layout(&work, &[], &config);
    for words in ["", " --payload --init init-payload"] {
        let line = format!("pack oci -o image --arch amd64{words}");
        work.done(&line.split(' ').collect::<Vec<_>>());
        let found = work.inspect("image");
        let program = &found["program"];
        assert_eq!(program["args"], serde_json::json!(["serve", "a b"]), "{found}");
        assert_eq!((&program["uid"], &program["groups"]), (&101.into(), &serde_json::json!([5])), "{found}");
        assert_eq!((&program["stop"], &program["onexit"]), (&3.into(), &"poweroff".into()), "{found}");
        assert_eq!(program["env"][0], "A=1", "{found}");
        let shown = work.done(&["inspect", "image"]);
        assert!(shown.contains("program") && shown.contains("serve a b (user 101:102, in /)"), "{shown}");
    }
    work.done(&["pack", "root", "-o", "image"]);
    assert!(work.inspect("image")["program"].is_null());
    // A description that the runner would refuse is a problem.
    fs::write(work.path("root/.repot-run"), "repot-run 1\ncolor red\n").unwrap();
    work.done(&["pack", "root", "-o", "image"]);
    let found = work.inspect("image");
    let problems = found["problems"].to_string();
    assert!(problems.contains("/.repot-run:2: unknown key"), "{problems}");
}

#[test]
fn command_line_overrides_the_configuration() {
    let work = Work::new();
    layout(&work, &[], &serde_json::json!({"Cmd": ["nosuch"], "Env": ["A=1", "B=2"], "User": "web"}));
    let words = "pack oci -o image --arch amd64 --env B=3 --workdir /tmp --user 0:audio --onexit reboot -- /usr/bin/serve x";
    work.done(&words.split(' ').collect::<Vec<_>>());
    let description = file(&work, "image", ".repot-run");
    for line in
        ["arg /usr/bin/serve", "arg x", "env A=1", "env B=3", "workdir /tmp", "user 0 5", "onexit reboot"]
    {
        assert!(description.lines().any(|other| other == line), "{line}: {description}");
    }
    assert!(!description.contains("B=2"), "{description}");
}

#[test]
fn what_is_missing_is_an_error_and_nothing_is_written() {
    let work = Work::new();
    layout(&work, &[], &serde_json::json!({"Entrypoint": ["nosuch"]}));
    let pack = |words: &str| work.fails(&words.split(' ').collect::<Vec<_>>());
    assert!(
        pack("pack oci -o image --arch amd64").contains("\"nosuch\" is in no directory of the image's PATH")
    );
    assert!(pack("pack oci -o image --arch amd64 -- /usr/bin/nosuch").contains("/usr/bin/nosuch"));
    let user = pack("pack oci -o image --arch amd64 --user nobody -- serve");
    assert!(user.contains("\"nobody\" is not in the image's /etc/passwd"), "{user}");
    assert!(pack("pack root -o image --run").contains("no Entrypoint and no Cmd"));
    assert!(!work.path("image").exists());
}

#[test]
fn init_of_a_container_image_is_booted_unless_run_is_asked_for() {
    let work = Work::new();
    let program = work.read("init");
    let program = String::from_utf8_lossy(&program);
    layout(&work, &[("sbin/init", &program)], &serde_json::json!({"Cmd": ["serve"]}));
    let shown = work.done(&["pack", "oci", "-o", "image", "--arch", "amd64"]);
    assert!(shown.contains("the image boots its init /sbin/init"), "{shown}");
    let shown = work.done(&["pack", "oci", "-o", "image", "--arch", "amd64", "--no-run"]);
    assert!(!shown.contains("warning: the image boots"), "{shown}");
    let json = work.done(&["pack", "oci", "-o", "image", "--arch", "amd64", "--run", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["run"], "serve (user 0:0, in /)");
}
