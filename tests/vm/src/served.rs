//! Boots of web servers in container images: a page is fetched through `repot boot --publish`.
//!
//! The kernels are Debian's, with the driver of the network card as a module and without `ip=`: `repot boot`
//! adds the modules, and the runner loads them and sets the address.

use crate::{Boot, LIMIT, containers, programs, run_images};
use anyhow::{Context, Result, ensure};
use repot_harness::tool::Tool;
use repot_harness::{debian, kernels, place};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

struct Server {
    name: &'static str,
    kernel: &'static str,
    packages: &'static str,
    /// What the scripts of its packages would do when they are installed.
    setup: &'static str,
    program: &'static [&'static str],
    /// What the console shows once it listens.
    listens: &'static str,
    /// Where it looks for its pages.
    pages: &'static str,
    /// Its exit code after Ctrl-C.
    code: i32,
}

const SERVERS: [Server; 2] = [
    Server {
        name: "httpd",
        kernel: "5.10",
        packages: "busybox-static",
        setup: "ln -s busybox bin/sh",
        program: &[
            "/bin/sh",
            "-c",
            "trap 'exit 5' INT; cat /etc/resolv.conf; busybox httpd -p 80 -h /www && echo listens on 80; \
             busybox sleep 1000 & wait",
        ],
        listens: "nameserver 10.0.2.3\r\nlistens on 80",
        pages: "www",
        code: 5,
    },
    Server {
        name: "nginx",
        kernel: "6.12",
        packages: "nginx-light",
        setup: "ln -s ../sites-available/default etc/nginx/sites-enabled/default",
        program: &["/usr/sbin/nginx", "-g", "daemon off; error_log stderr notice;"],
        listens: "start worker process ",
        pages: "var/www/html",
        code: 0,
    },
];

const PAGE: &str = "a page from the machine\n";

/// A boot for each server.
pub(crate) fn boots() -> Vec<Boot> {
    let boot = |server: &'static Server| Boot {
        name: format!("served/{}", server.name),
        long: false,
        run: Box::new(move || serve(server)),
    };
    SERVERS.iter().map(boot).collect()
}

fn serve(server: &Server) -> Result<()> {
    debian::need(&[debian::QEMU, debian::DPKG_DEB, debian::APT, ("umoci", "umoci")])?;
    debian::need_root("building container images")?;
    let folder = place::fresh(&format!("served/{}", server.name))?;
    let mut config = vec!["--config.exposedports", "80/tcp"];
    config.extend(server.program.iter().flat_map(|word| ["--config.entrypoint", word]));
    containers::build(&folder, server.packages, &config, &tree(server)).context("cannot build the image")?;
    let tool = programs::tool()?;
    Tool::at(tool.to_owned()).run(&folder, &["pack", "oci", "-o", "image", "--arch", "amd64"])?;
    // Free a moment ago; QEMU fails if another process has taken it since.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new(tool);
    command.args(["boot", "image", "--no-kvm", "--publish", &format!("{port}:80"), "--timeout"]);
    command.arg(LIMIT.as_secs().to_string()).arg("--kernel").arg(&kernels::kernel(server.kernel)?.image);
    kernels::modules(server.kernel)?;
    command.current_dir(&folder);
    let mut answer = String::new();
    let (code, console, _) = run_images::converse(command, server.listens, &mut |input| {
        answer = fetch(port)?;
        input.write_all(b"\x03").context("cannot type Ctrl-C")
    })?;
    std::fs::write(folder.join("console.txt"), console)?;
    let seen = folder.strip_prefix(place::checkout()).unwrap_or(Path::new("target")).display();
    ensure!(answer.contains(" 200 ") && answer.ends_with(PAGE), "the answer is {answer:?}; see {seen}");
    ensure!(code == Some(server.code), "repot boot exited with {code:?}; see {seen}");
    Ok(())
}

/// The script that adds the page and the users to the tree.
fn tree(server: &Server) -> String {
    let (pages, setup) = (server.pages, server.setup);
    format!(
        "mkdir -p {pages} bin etc var/log; printf '{page}' > {pages}/index.html
         echo root:x:0:0::/root:/bin/sh > etc/passwd; echo www-data:x:33:33::/var/www:/bin/sh >> etc/passwd
         echo root:x:0: > etc/group; echo www-data:x:33: >> etc/group
         {setup}",
        page = PAGE.escape_default(),
    )
}

fn fetch(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("cannot connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\nHost: machine\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("cannot read the answer")?;
    Ok(answer)
}
