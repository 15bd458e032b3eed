//! `cargo xtask bench tool`: `ls`, `extract` and `create` against the programs that do the same, turn by
//! turn.

use super::packing::{Cost, time};
use super::trees::Tree;
use super::{document, machine, plot, text};
use anyhow::{Context, Result, ensure};
use repot_harness::command::exists;
use repot_harness::{build, debian, place};
use repot_vm::initrds::{self, Made};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The magic of zstd.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A program in one race: its name, and a shell line.
struct Way {
    name: &'static str,
    /// The program that it needs.
    needs: &'static str,
    line: String,
}

/// One table.
struct Race {
    title: String,
    ways: Vec<Way>,
    costs: Vec<Vec<Cost>>,
}

/// Measures, prints the tables, and writes `docs/bench/tool.md`.
pub(crate) fn tool(tool: Option<&Path>, rounds: usize, quick: bool) -> Result<()> {
    debian::need(&[("cpio", "cpio"), ("zstd", "zstd"), ("bsdtar", "libarchive-tools")])?;
    let built = tool.is_none();
    let tool = tool.map_or_else(|| build::tool(&[build::Arch::X86_64]), |path| Ok(path.to_path_buf()))?;
    let tool = tool.canonicalize().context("no such tool")?;
    let scratch = scratch()?;
    let folder = scratch.path();
    let rounds = if quick { rounds.min(2) } else { rounds };
    let load =
        || fs::read_to_string("/proc/loadavg").map(|text| text.split(' ').next().unwrap_or("?").to_owned());
    let before = load()?;
    if !exists("3cpio") {
        eprintln!("3cpio is not installed, so its rows are left out (cargo install threecpio)");
    }
    let mut races = races(&tool, folder)?;
    for race in &mut races {
        race.run(folder, rounds)?;
        println!("{}\n\n{}", race.title, race.table());
    }
    let page = page(&races, rounds, &before, &load()?, built)?;
    if !quick {
        for race in &races {
            race.draw()?;
        }
        document::write("tool.md", &page)?;
    }
    Ok(())
}

/// The folder of images and of what is made of them: in memory, or the disk and the traces of what has been
/// removed from it (ext4 without a journal searches long for a free inode) cost more than the programs.
fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_path_buf() } else { place::kept("bench")? };
    let made = tempfile::Builder::new().prefix("repot-bench-").tempdir_in(&place);
    made.with_context(|| format!("cannot create a folder in {}", place.display()))
}

/// All races.
fn races(tool: &Path, folder: &Path) -> Result<Vec<Race>> {
    let repot = tool.display().to_string();
    let mut races = Vec::new();
    for name in ["initramfs-tools-desktop-zstd", "dracut-zstd"] {
        for made in initrds::made(name)? {
            races.extend(initrd(&repot, &made, folder)?);
        }
    }
    let tree = Tree::debian("debian", "systemd,systemd-sysv", "Debian minbase with systemd");
    tree.prepare()?;
    races.extend(root(&repot, &tree.kept()?, folder)?);
    Ok(races)
}

/// A line of a race.
fn way(name: &'static str, needs: &'static str, line: String) -> Way {
    Way { name, needs, line }
}

/// Listing and extracting an initrd.
fn initrd(repot: &str, made: &Made, folder: &Path) -> Result<[Race; 2]> {
    let mut about = format!("the initrd of {}", made.name.trim_end_matches("-zstd"));
    let image = folder.join(&made.name);
    // Behind several segments, cpio and bsdtar read the first one only. The programs of initramfs-tools are
    // shell scripts, and run in a root that has them.
    let several = made.name.starts_with("initramfs-tools");
    let (script, cpio, bsdtar) = if several { ("sh", "", "") } else { ("", "cpio", "bsdtar") };
    let bytes = fs::read(&made.image)?;
    let mut before = 0;
    if several {
        before = bytes.windows(4).position(|window| window == ZSTD).context("no zstd in the image")?;
        about += &format!(", behind {} MiB of microcode", before >> 20);
    }
    fs::write(&image, &bytes)?;
    fs::write(made.root.join("image.bench"), &bytes)?;
    let (size, image, root) = (bytes.len() >> 20, image.display(), made.root.display());
    let alone = format!("tail -c +{} {image} | zstd -dcq", before + 1);
    let ls = vec![
        way("repot ls", "sh", format!("{repot} ls {image}")),
        way("repot ls -l", "sh", format!("{repot} ls -l {image}")),
        way("3cpio -t", "3cpio", format!("3cpio -t {image}")),
        way("3cpio -tv", "3cpio", format!("3cpio -tv {image}")),
        way("lsinitramfs", script, format!("chroot {root} lsinitramfs /image.bench")),
        way("bsdtar -t", bsdtar, format!("bsdtar -tf {image}")),
        way("zstd | cpio -t", cpio, format!("zstd -dcq < {image} | cpio -t --quiet")),
        way("zstd -d alone", "zstd", alone.clone()),
    ];
    let unpack = format!(
        "unshare -m sh -c 'mount -t tmpfs out {root}/mnt && chroot {root} unmkinitramfs /image.bench /mnt/out'"
    );
    let extract = vec![
        way("repot extract", "sh", format!("{repot} extract {image} -C out")),
        way("3cpio -x", "3cpio", format!("mkdir out && 3cpio -x -C out {image}")),
        way("unmkinitramfs", script, unpack),
        way("bsdtar -x", bsdtar, format!("mkdir out && bsdtar -xf {image} -C out")),
        way(
            "zstd | cpio -i",
            cpio,
            format!("mkdir out && cd out && zstd -dcq < {image} | cpio -idm --quiet"),
        ),
        way("zstd -d alone", "zstd", alone),
    ];
    Ok([
        Race::new(format!("ls: {about}, {size} MiB"), ls),
        Race::new(format!("extract: {about}, {size} MiB"), extract),
    ])
}

/// Listing, extracting and creating an archive of a whole root.
fn root(repot: &str, root: &Path, folder: &Path) -> Result<Vec<Race>> {
    let (root, list, plain) = (root.display(), folder.join("list"), folder.join("plain.cpio"));
    let (list, shown) = (list.display(), plain.display());
    let prepare = format!(
        "cd {root} && find . -xdev | LC_ALL=C sort > {list} && cpio -o -H newc --quiet < {list} > {shown}"
    );
    let prepared = Command::new("sh").args(["-c", &prepare]).status().context("cannot run sh")?;
    ensure!(prepared.success(), "cannot pack {root}");
    let (size, plain) = (plain.metadata()?.len() >> 20, shown);
    let ls = vec![
        way("repot ls", "sh", format!("{repot} ls {plain}")),
        way("3cpio -t", "3cpio", format!("3cpio -t {plain}")),
        way("bsdtar -t", "bsdtar", format!("bsdtar -tf {plain}")),
        way("cpio -t", "cpio", format!("cpio -t --quiet < {plain}")),
    ];
    let extract = vec![
        way("repot extract", "sh", format!("{repot} extract {plain} -C out")),
        way("3cpio -x", "3cpio", format!("mkdir out && 3cpio -x -C out {plain}")),
        way("bsdtar -x", "bsdtar", format!("mkdir out && bsdtar -xf {plain} -C out")),
        way("cpio -i", "cpio", format!("mkdir out && cd out && cpio -idm --quiet < {plain}")),
    ];
    let bsdtar = format!("bsdtar -C {root} -c --format newc -n -T {list} -f");
    let cpio = format!("(cd {root} && cpio -o -H newc --quiet < {list})");
    let create = vec![
        way("repot create", "sh", format!("{repot} create {list} -C {root} -o made")),
        way("3cpio -c", "3cpio", format!("3cpio -c -C {root} $PWD/made < {list}")),
        way("bsdtar -c", "bsdtar", format!("{bsdtar} made")),
        way("cpio -o", "cpio", format!("{cpio} > made")),
        way("cat alone", "cat", format!("cat {plain} > made")),
    ];
    let compress = vec![
        way("repot create", "sh", format!("{repot} create {list} -C {root} -o made -c zstd --level 3")),
        way(
            "3cpio -c",
            "3cpio",
            format!("(echo '#cpio: zstd -3'; cat {list}) | 3cpio -c -C {root} $PWD/made"),
        ),
        way("bsdtar -c | zstd", "bsdtar", format!("{bsdtar} - | zstd -q -T0 -3 > made")),
        way("cpio -o | zstd", "cpio", format!("{cpio} | zstd -q -T0 -3 > made")),
        way("zstd alone", "zstd", format!("zstd -q -T0 -3 < {plain} > made")),
    ];
    let title = |what: &str, how: &str| format!("{what}: a Debian root, {how}, {size} MiB");
    Ok(vec![
        Race::new(title("ls", "not compressed"), ls),
        Race::new(title("extract", "not compressed"), extract),
        Race::new(title("create", "not compressed"), create),
        Race::new(title("create", "zstd -3"), compress),
    ])
}

impl Race {
    /// A race of those that this machine has.
    fn new(title: String, ways: Vec<Way>) -> Race {
        let ways: Vec<Way> =
            ways.into_iter().filter(|way| !way.needs.is_empty() && exists(way.needs)).collect();
        let costs = ways.iter().map(|_| Vec::new()).collect();
        Race { title, ways, costs }
    }

    fn run(&mut self, folder: &Path, rounds: usize) -> Result<()> {
        let count = self.ways.len();
        for round in 0..=rounds {
            for at in 0..count {
                // The order alternates. The first round does not count: it brings the files into memory.
                let at = if round % 2 == 0 { at } else { count - 1 - at };
                for old in ["out", "made"].map(|name| folder.join(name)) {
                    if old.is_dir() {
                        fs::remove_dir_all(old)?
                    } else if old.exists() {
                        fs::remove_file(old)?
                    }
                }
                let cost = time(folder, &self.ways[at].line)?;
                if round > 0 {
                    self.costs[at].push(cost);
                }
            }
        }
        Ok(())
    }

    /// The median of one kind of time.
    fn median(&self, at: usize, of: fn(&Cost) -> f64) -> f64 {
        text::median(&self.costs[at].iter().map(of).collect::<Vec<f64>>())
    }

    fn table(&self) -> String {
        let ratio =
            |at: usize, of: fn(&Cost) -> f64| format!("{:.2}", self.median(at, of) / self.median(0, of));
        let rows: Vec<Vec<String>> = (0..self.ways.len())
            .map(|at| {
                let (wall, cpu) = (self.median(at, |cost| cost.wall), self.median(at, |cost| cost.cpu));
                vec![
                    self.ways[at].name.to_owned(),
                    text::seconds(wall),
                    ratio(at, |cost| cost.wall),
                    text::seconds(cpu),
                    ratio(at, |cost| cost.cpu),
                ]
            })
            .collect();
        text::table(&["", "wall", "vs repot", "CPU time", "vs repot"], &rows)
    }

    /// The file of its drawing.
    fn file(&self) -> String {
        let words = self.title.split(|letter: char| !letter.is_ascii_alphanumeric());
        let words: Vec<&str> =
            words.filter(|word| !matches!(*word, "" | "a" | "the" | "of" | "MiB" | "not")).collect();
        format!("tool-{}.svg", words[..words.len().min(4)].join("-").to_lowercase())
    }

    fn draw(&self) -> Result<()> {
        let bars: Vec<(String, f64, String)> = (0..self.ways.len())
            .map(|at| {
                let wall = self.median(at, |cost| cost.wall);
                (self.ways[at].name.to_owned(), wall, text::seconds(wall))
            })
            .collect();
        plot::bars(&document::path(&self.file())?, &self.title, &bars)
    }
}

fn page(races: &[Race], rounds: usize, before: &str, after: &str, built: bool) -> Result<String> {
    let mut page = format!(
        "# Looking into images\n\n`cargo xtask bench tool` lists, extracts and creates images with `repot` and with the \
         programs that do the same, turn by turn, into a tmpfs and with warm caches. The rows that end with \"alone\" \
         do a part of the work that none can do without: only decompressing, only writing the bytes of the archive, \
         only compressing them. {} rounds. {} The load \
         average was {before} before and {after} after the run: other work shared the CPUs, so compare the CPU time \
         where it is above 1. 3cpio starts the program of the compression and does not wait for it, so that its CPU \
         time is missing where something is decompressed.{}\n\n",
        text::medians(rounds).trim_end_matches(" rounds"),
        machine::about()?,
        if built { "" } else { " The tool was given by --tool." },
    );
    for race in races {
        let _ = writeln!(page, "## {}\n\n{}\n![]({})\n", race.title, race.table(), race.file());
    }
    Ok(page)
}

/// The options.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The tool to measure [default: build it]
    #[arg(long, value_name = "FILE")]
    pub(crate) tool: Option<PathBuf>,
}
