//! Boots of web servers: a page is fetched through `repot boot --publish`.
//!
//! Debian's kernels have virtio_net as a module and no `ip=`, so the program that the image runs loads the
//! driver and sets the address before it starts the server.

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
    packages: &'static str,
    /// What the scripts of its packages would do when they are installed.
    setup: &'static str,
    /// Starts the server in the background; it listens when this returns.
    start: &'static str,
    /// Where it looks for its pages.
    pages: &'static str,
}

const SERVERS: [Server; 2] = [
    Server {
        name: "httpd",
        packages: "busybox-static",
        setup: ":",
        start: "httpd -p 80 -h /www",
        pages: "www",
    },
    Server {
        name: "nginx",
        packages: "nginx-light busybox-static",
        setup: "ln -s ../sites-available/default etc/nginx/sites-enabled/default",
        start: "nginx",
        pages: "var/www/html",
    },
];

const KERNEL: &str = "6.12";
const DRIVERS: [&str; 3] = ["failover", "net_failover", "virtio_net"];
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
    let config = ["--config.entrypoint", "/start", "--config.exposedports", "80/tcp"];
    containers::build(&folder, server.packages, &config, &tree(server)?).context("cannot build the image")?;
    let tool = programs::tool()?;
    Tool::at(tool.to_owned()).run(&folder, &["pack", "oci", "-o", "image", "--arch", "amd64"])?;
    // Free a moment ago; QEMU fails if another process has taken it since.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new(tool);
    command.args(["boot", "image", "--no-kvm", "--publish", &format!("{port}:80"), "--timeout"]);
    command.arg(LIMIT.as_secs().to_string()).arg("--kernel").arg(&kernels::kernel(KERNEL)?.image);
    command.current_dir(&folder);
    let mut answer = String::new();
    let (code, console, _) = run_images::converse(command, "server listens", &mut |input| {
        answer = fetch(port)?;
        input.write_all(b"\x03").context("cannot type Ctrl-C")
    })?;
    std::fs::write(folder.join("console.txt"), console)?;
    let seen = folder.strip_prefix(place::checkout()).unwrap_or(Path::new("target")).display();
    ensure!(answer.contains(" 200 ") && answer.ends_with(PAGE), "the answer is {answer:?}; see {seen}");
    ensure!(code == Some(5), "repot boot exited with {code:?}; see {seen}");
    Ok(())
}

/// The script that adds the pages, the drivers and the program to the tree.
fn tree(server: &Server) -> Result<String> {
    let names = DRIVERS.map(str::to_owned);
    let files = kernels::drivers(KERNEL, &names)?.files;
    let copies: Vec<_> = files.iter().map(|file| format!("cp {} drivers/; ", file.display())).collect();
    let (copies, pages, start, setup) = (copies.concat(), server.pages, server.start, server.setup);
    let drivers = DRIVERS.map(|name| format!("insmod /drivers/{name}.ko")).join("\n");
    Ok(format!(
        "mkdir -p drivers {pages} bin etc var/log; {copies} printf '{page}' > {pages}/index.html
         for name in sh insmod ifconfig httpd sleep; do test -e bin/$name || ln -s busybox bin/$name; done
         echo root:x:0:0::/root:/bin/sh > etc/passwd; echo www-data:x:33:33::/var/www:/bin/sh >> etc/passwd
         echo root:x:0: > etc/group; echo www-data:x:33: >> etc/group
         {setup}
         cat > start <<'END'
#!/bin/sh -e
{drivers}
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
trap 'exit 5' INT
{start}
echo server listens
sleep 1000 &
wait
END
         chmod 755 start",
        page = PAGE.escape_default(),
    ))
}

fn fetch(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("cannot connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\nHost: machine\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("cannot read the answer")?;
    Ok(answer)
}
