//! What the kit does inside a container. Its findings go to stdout as lines
//! `@@ key value`, so that banners of a foreign program do not disturb.

use std::env::{self, ArgsOs};
use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{
    Uid, chdir, chroot, fchdir, geteuid, gethostname, getuid, sethostname,
    setuid,
};

/// The first argument of a process that plays this part.
pub const PART: &str = "suite:probe";

/// How a line of the probe begins.
pub const MARK: &str = "@@ ";

/// Somebody who owns nothing in the container.
const NOBODY: Uid = Uid::from_raw(54321);

/// Nothing that the probe starts lives longer.
const LONGEST: Duration = Duration::from_secs(60);

/// `suite:probe ACTION ARGS…`
pub fn main(mut args: std::iter::Skip<ArgsOs>) -> ! {
    let action = args.next().unwrap_or_default();
    let args: Vec<_> = args.collect();
    if let Err(error) = act(&action.to_string_lossy(), &args) {
        say("error", &error.to_string());
        process::exit(98);
    }
    process::exit(0);
}

fn say(key: &str, value: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{MARK}{key} {value}");
    let _ = out.flush();
}

fn act(action: &str, args: &[OsString]) -> Result<(), Box<dyn Error>> {
    let text = |n: usize| {
        args.get(n)
            .map(|arg| arg.to_string_lossy().into_owned())
            .ok_or("an argument is missing")
    };
    match action {
        "args" => {
            for arg in args {
                let hex: String =
                    arg.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
                say("arg", &format!("[{hex}]"));
            }
        }
        "hold" => hold(),
        "mount-and-hold" => {
            let at = ["/mnt", "/root", "/tmp"];
            let at = at.iter().find(|dir| Path::new(dir).is_dir());
            let at = at.ok_or("there is no directory to mount on")?;
            let done = change_mount(at, Some("tmpfs"), MsFlags::empty());
            say("mounted", &format!("{at}: {done:?}"));
            hold();
        }
        "sleep" => thread::sleep(Duration::from_secs(text(1)?.parse()?)),
        "spin" => {
            let end = Instant::now() + Duration::from_secs(text(0)?.parse()?);
            while Instant::now() < end {
                black_box(0);
            }
        }
        "environment" => {
            say("environment", "read");
            for (key, value) in env::vars_os() {
                say("variable", &format!("{key:?}={value:?}"));
            }
            // That of PID 1 is there to be read, too.
            let init = fs::read("/proc/1/environ").unwrap_or_default();
            for variable in init.split(|byte| *byte == 0) {
                say("of-pid-1", &String::from_utf8_lossy(variable));
            }
        }
        "sethostname" => {
            let done = sethostname(text(0)?);
            say("sethostname", &format!("{done:?}"));
            hold();
        }
        "read" => read_by_any_way(Path::new(&args[0])),
        "escape" => escape_by_chroot(Path::new(&args[0]))?,
        "escape-descriptor" => escape_by_descriptor(Path::new(&args[0]))?,
        "devices" => devices(),
        "spawn" => spawn(text(0)?.parse()?)?,
        "leave-behind" => {
            // Its streams are closed ones: nobody shall wait for them, and
            // there may be no /dev/null.
            let child = ourselves(&["sleep", "left-behind", &text(0)?])?
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            say("left", &child.id().to_string());
        }
        "leave-orphans" => {
            for _ in 0..text(0)?.parse()? {
                // Its parent ends first.
                ourselves(&["leave-behind", "0"])?.status()?;
            }
            say("orphans", &text(0)?);
            hold();
        }
        "memory" => memory(text(0)?.parse()?),
        "mknod" => {
            // The number of /dev/zero, see mem(4).
            let (kind, mode) = (SFlag::S_IFCHR, Mode::S_IRUSR);
            let made = mknod(Path::new(&args[0]), kind, mode, makedev(1, 5));
            say("mknod", &format!("{made:?}"));
        }
        "start-as-another" => {
            setuid(NOBODY)?;
            let program = args.first().ok_or("no program")?;
            return Err(Command::new(program)
                .args([PART, "ids"])
                .exec()
                .into());
        }
        "ids" => say("euid", &geteuid().to_string()),
        "can-have-user-namespace" => user_namespace()?,
        "outside" | "outside-with-masked-proc" => {
            unshare(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS)?;
            change_mount("/", None, MsFlags::MS_PRIVATE | MsFlags::MS_REC)?;
            if action == "outside-with-masked-proc" {
                change_mount("/proc/sys", Some("tmpfs"), MsFlags::MS_RDONLY)?;
            }
            change_mount("/", None, MsFlags::MS_SHARED | MsFlags::MS_REC)?;
            hold();
        }
        _ => return Err(format!("no such action: {action}").into()),
    }
    Ok(())
}

/// mount(2) without a source.
fn change_mount(
    at: &str,
    kind: Option<&str>,
    flags: MsFlags,
) -> nix::Result<()> {
    mount(None::<&str>, at, kind, flags, None::<&str>)
}

/// Says who it is and what it sees, then again the host name for each line on
/// stdin, and ends with it.
fn hold() {
    say("pid", &process::id().to_string());
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    say("processes", &format!("{pids:?}"));
    let own = fs::read_link("/proc/self").unwrap_or_default();
    say("self", &own.to_string_lossy());
    say_hostname();
    say("ready", "");
    thread::spawn(|| {
        thread::sleep(LONGEST);
        process::exit(97);
    });
    for _ in io::stdin().lines().map_while(Result::ok) {
        say_hostname();
    }
}

fn say_hostname() {
    let name = gethostname().unwrap_or_default();
    say("hostname", &name.to_string_lossy());
}

/// Reads a file of the host, and says so when that works.
fn read(path: &Path, way: &str) {
    match fs::read_to_string(path) {
        Ok(text) => say("read", &format!("{text} (through {way})")),
        Err(error) => say("unread", &format!("{error} (through {way})")),
    }
}

/// How many directories up is surely the root.
const UP: usize = 64;

/// Looks for a file of the host where a root that is only half changed still
/// shows it: above a working directory that stayed outside, in an old root
/// that stayed mounted, in the root of a process that is not in ours.
fn read_by_any_way(path: &Path) {
    read(path, "the path itself");
    let Ok(path) = path.strip_prefix("/") else { return };
    let above = "../".repeat(UP);
    let mut tops = vec![Path::new(&above).to_owned()];
    let mut dirs = vec![(Path::new("/").to_owned(), 0)];
    while let Some((dir, depth)) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let found = entry.path();
            if found == Path::new("/proc") || found == Path::new("/sys") {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                tops.push(found.clone());
                if depth < 1 {
                    dirs.push((found, depth + 1));
                }
            }
        }
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        tops.push(entry.path().join("root"));
        tops.push(entry.path().join("cwd").join(&above));
    }
    for top in tops {
        if let Ok(text) = fs::read_to_string(top.join(path)) {
            let shown = top.display().to_string().replace(&above, "../…");
            say("read", &format!("{text} (through {shown})"));
            return;
        }
    }
}

/// The escape that everybody learns: a second chroot forgets the first, and
/// the working directory, left outside it, climbs to the true root.
fn escape_by_chroot(path: &Path) -> Result<(), Box<dyn Error>> {
    read(path, "the path itself");
    chdir("/")?;
    // One that is there: nothing may be writable.
    let dir = ["bin", "tmp", "etc"].iter().find(|dir| Path::new(dir).is_dir());
    let chrooted = chroot(*dir.ok_or("there is no directory in /")?);
    if chrooted.is_ok() {
        for _ in 0..UP {
            chdir("..")?;
        }
        chroot(".")?;
        read(path, "chroot, `..`, chroot");
    } else {
        say("unread", &format!("chroot: {chrooted:?}"));
    }
    Ok(())
}

/// A directory that the caller left open is a way out of every root. It is
/// our stdin here, since safe code cannot borrow a descriptor by its number.
fn escape_by_descriptor(path: &Path) -> Result<(), Box<dyn Error>> {
    fchdir(io::stdin())?;
    read(path.strip_prefix("/")?, "a descriptor");
    Ok(())
}

/// Whether /dev is usable, whose it is, and whether disks are in it.
fn devices() {
    let mut disks = Vec::new();
    let mut dirs = vec![Path::new("/dev").to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(kind) if kind.is_block_device() => {
                    disks.push(entry.file_name());
                }
                _ => {}
            }
        }
    }
    let disks: Vec<_> = disks.iter().map(|it| it.to_string_lossy()).collect();
    say("disks", &disks.join(", "));
    if let Ok(meta) = fs::metadata("/dev") {
        say("identity", &format!("{}:{}", meta.dev(), meta.ino()));
    }
    let open = |name: &str| {
        OpenOptions::new().read(true).write(true).open(format!("/dev/{name}"))
    };
    let first = |name: &str| -> io::Result<u8> {
        let mut byte = [255];
        File::open(format!("/dev/{name}"))?.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    let mut broken = Vec::new();
    let mut check = |name: &str, works: io::Result<bool>| match works {
        Ok(true) => {}
        Ok(false) => broken.push(format!("{name}: another device")),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(errno) => broken.push(format!("{name}: {errno:?}")),
            None => broken.push(format!("{name}: {error}")),
        },
    };
    check(
        "null",
        open("null").and_then(|mut null| {
            null.write_all(b"x")?;
            Ok(null.read(&mut [0])? == 0)
        }),
    );
    check("zero", first("zero").map(|byte| byte == 0));
    check(
        "full",
        open("full").map(|mut full| {
            full.write_all(b"x").is_err_and(|error| {
                error.raw_os_error() == Some(Errno::ENOSPC as i32)
            })
        }),
    );
    check("random", first("random").map(|_| true));
    check("urandom", first("urandom").map(|_| true));
    check(
        "tty",
        match open("tty") {
            // There is the device, there is no controlling terminal.
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENXIO) => Ok(true),
                _ => Err(error),
            },
            Ok(_) => Ok(true),
        },
    );
    say("broken", &broken.join(", "));
}

/// Starts that many processes that do nothing; counts those that the kernel
/// refused.
fn spawn(wanted: u32) -> Result<(), Box<dyn Error>> {
    let mut started = Vec::new();
    let mut refused = Vec::new();
    for _ in 0..wanted {
        match ourselves(&["sleep", "spawned", "30"])?.spawn() {
            Ok(child) => started.push(child),
            Err(error) => refused.push(error),
        }
    }
    say("started", &started.len().to_string());
    say("refused", &refused.len().to_string());
    if let Some(error) = refused.first() {
        say("because", &error.to_string());
    }
    for mut child in started {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

/// The probe once more. Without /proc there is only the name it was called by.
fn ourselves(args: &[&str]) -> Result<Command, Box<dyn Error>> {
    let name = env::args_os().next().ok_or("no name of our own")?;
    let mut command = Command::new(name);
    command.arg(PART).args(args);
    Ok(command)
}

/// Takes that many MiB and writes into every page, saying how far it got.
fn memory(wanted: usize) {
    const MIB: usize = 1024 * 1024;
    let mut taken = Vec::new();
    for n in 1..=wanted {
        let mut piece: Vec<u8> = Vec::new();
        if piece.try_reserve_exact(MIB).is_err() {
            say("refused", &n.to_string());
            return;
        }
        piece.resize(MIB, 1);
        taken.push(black_box(piece));
        say("touched", &n.to_string());
    }
    say("unlimited", "");
}

/// Whether this caller can have a user namespace and be root in it.
fn user_namespace() -> Result<(), Box<dyn Error>> {
    let uid = getuid();
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWUTS)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    sethostname("suite")?;
    say("user namespace", "works");
    Ok(())
}
