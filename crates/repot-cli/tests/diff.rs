//! `diff`: two roots of any kind.

mod support;

use std::fs;

use support::Work;

#[test]
fn the_same_root_in_every_form_has_no_differences() {
    let work = Work::new();
    work.run("sh", &["-c", "touch -d @1000000000 root/bin/tool; cd root && find . | cpio -o -H newc --quiet > ../cpio && tar -c . > ../tar && tar -cz . > ../tgz"]);
    for other in ["cpio", "tar", "tgz", "root"] {
        for (a, b) in [("root", other), (other, "cpio")] {
            assert_eq!(work.done(&["diff", a, b]), "no differences\n", "{a} {b}");
        }
    }
}

#[test]
fn every_kind_of_difference_is_named() {
    let work = Work::new();
    work.run("sh", &["-c", "printf 12345 > root/data; printf 1 > root/size; ln -s a root/link; touch root/mode root/time root/xattr root/gone root/kind; mkdir root/dir; cp -a root other"]);
    work.run("sh", &["-c", "cd other; printf 12x45 > data; touch -r ../root/data data; printf 22 > size; touch -r ../root/size size; \
        ln -sfn b link; touch -h -r ../root/link link; chmod 600 mode; touch -d '+2 seconds' -r ../root/time time; setfattr -n user.a -v 1 xattr; rm gone; touch new; \
        rm kind; mkdir kind; touch -r ../root/kind kind; chmod 644 kind; rm bin/alias; cp -a bin/tool bin/alias; touch -r ../root . bin dir"]);
    let out = work.repot(&["diff", "root", "other", "--ignore", "time"]);
    assert_eq!(out.status.code(), Some(1));
    let expected = "~ bin/tool: hard link bin/alias -> none\n\
        ~ data: contents from byte 2\n- gone\n~ kind: file -> directory\n~ link: target a -> b\n\
        ~ mode: mode 0644 -> 0600\n+ new\n~ size: size 1 -> 2\n~ xattr: attributes user.a\n1 added, 1 removed, 7 changed\n";
    assert_eq!(support::text(&out.stdout), expected);
    let json = work.repot(&["diff", "root", "other", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let time = json["changed"].as_array().unwrap().iter().find(|one| one["name"] == "time").unwrap();
    assert!(time["what"][0].as_str().unwrap().starts_with("time "), "{time}");
    assert_eq!((&json["added"][0], &json["removed"][0]), (&"new".into(), &"gone".into()));
    // Ignored differences are none.
    work.run("sh", &["-c", "rm -r other; cp -a root other; chmod 600 other/mode; touch other/time; setfattr -n user.a -v 1 other/xattr"]);
    let ignored = ["--ignore", "mode", "--ignore", "time", "--ignore", "xattrs", "--ignore", "owner"];
    assert_eq!(work.done(&[&["diff", "root", "other"][..], &ignored].concat()), "no differences\n");
}

#[test]
fn corrupt_input_is_one_error_and_no_comparison() {
    let work = Work::new();
    work.run("sh", &["-c", "cd root && find . | cpio -o -H newc --quiet | gzip > ../image"]);
    let image = work.read("image");
    fs::write(work.path("cut"), &image[..image.len() / 2]).unwrap();
    for (a, b) in [("image", "cut"), ("cut", "image")] {
        let out = work.repot(&["diff", a, b]);
        assert_eq!(out.status.code(), Some(1));
        assert!(out.stdout.is_empty());
        let error = support::text(&out.stderr);
        assert!(
            error.starts_with("repot: cut: in the gzip segment at byte 0: ") && error.lines().count() == 1,
            "{error}"
        );
    }
}
