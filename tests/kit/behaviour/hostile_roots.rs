//! Roots that were made to do harm, and roots in odd places: a clear error or
//! a whole container, and never a write outside. From step04 on.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, pipe2};

use crate::caller::Caller;
use crate::harness::{Test, skip};
use crate::host::Outside;
use crate::process::{self, SOON};
use crate::program::{Output, Start, Subject};
use crate::tests;

/// From step04 on.
pub const UNDER_FIRE: &[Test] = tests![needs container:
    proc_may_be_anything,
    dev_may_be_anything,
    what_is_in_dev_stays_below,
    links_out_are_followed_inside,
    the_default_root_may_be_anything,
    the_root_of_all_is_no_victim,
    a_root_may_be_named_in_many_ways,
    a_root_may_have_any_name,
    a_path_may_be_long,
    a_root_of_somebody_else,
    a_root_on_any_mount,
    a_root_on_overlayfs,
    mounts_below_a_root,
    a_root_that_changes_meanwhile,
];

/// From step05 on.
pub const MOUNTED: &[Test] = tests![needs container:
    what_a_hint_says_can_be_pasted,
];

/// From step06 on.
pub const PIVOTED: &[Test] = tests![needs container:
    dev_is_not_exchanged_meanwhile,
];

/// What has to come of a root.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// A whole container.
    Works,
    /// The script ends with this status.
    Ends(i32),
    /// The program does, with one line that has the first text in it; and the
    /// hint, where that is known, has the second.
    Fails(i32, &'static str, &'static str),
}

use Outcome::{Ends, Fails, Works};

/// What may stand where a folder is expected.
#[derive(Clone, Debug)]
enum Thing {
    Nothing,
    File,
    Fifo,
    Folder,
    Link(PathBuf),
}

use Thing::{Fifo, Folder, Nothing};

fn link(to: impl Into<PathBuf>) -> Thing {
    Thing::Link(to.into())
}

impl Thing {
    fn put(&self, at: &Path) -> Result<()> {
        match self {
            Self::Nothing => {}
            Self::File => fs::write(at, "in the way")?,
            Self::Fifo => mkfifo(at, Mode::from_bits_truncate(0o644))?,
            Self::Folder => fs::create_dir(at)?,
            Self::Link(to) => symlink(to, at)?,
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Err(_) => {}
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path)?,
        Ok(_) => fs::remove_file(path)?,
    }
    Ok(())
}

/// A folder of its own with a victim beside `fs`, on a host whose mounts are
/// shared, as systemd has them: there a mount made inside would show.
struct Site<'a> {
    subject: &'a Subject<'a>,
    outside: Outside,
}

fn on_a_site(
    subject: &Subject,
    test: impl FnOnce(&Site) -> Result<()>,
) -> Result<()> {
    subject.apart(|subject| {
        let victim = subject.path("victim");
        fs::create_dir_all(victim.join("proc"))?;
        fs::write(victim.join("file"), "the host's")?;
        // What may not be written would prove nothing.
        subject.sandbox.give_away(&victim)?;
        let outside = Outside::new(subject)?;
        test(&Site { subject, outside })
    })
}

/// Says so when the container is whole.
const WHOLE: &str = "looked around\n";

impl Site<'_> {
    fn step(&self) -> usize {
        self.subject.step
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.subject.path(name)
    }

    fn victim(&self) -> PathBuf {
        self.path("victim")
    }

    /// How the host's victim is called for those who can climb to it.
    fn climb(&self) -> PathBuf {
        Path::new("../../../../../../../..")
            .join(self.victim().strip_prefix("/").expect("it is absolute"))
    }

    /// A shell in the root that looks whether the container is whole.
    fn shell(&self) -> Start {
        let secret = self.subject.sandbox.secret();
        let mut script = format!(
            "[ $(pwd) = / ] || exit 11
            [ ! -e '{}' ] || exit 12\n",
            secret.display()
        );
        if self.step() >= 5 {
            script += "[ -e /proc/self/stat ] || exit 13
                set -- /proc/[0-9]*
                [ $# -le 3 ] || exit 14\n";
        }
        if self.step() >= 6 {
            script += "for name in null zero full random urandom tty; do
                    [ -c /dev/$name ] || exit 15
                done
                echo gone > /dev/null
                [ -z \"$(cat /dev/null)\" ] || exit 16\n";
        }
        script += "echo looked around";
        self.subject.sh(&script)
    }

    /// The same in the root of that name.
    fn shell_in(&self, root: impl AsRef<OsStr>) -> Start {
        self.shell().options([OsStr::new("--rootfs"), root.as_ref()])
    }

    /// Starts that, and expects that nothing changes outside, nor in the root.
    fn expect(&self, start: Start, outcome: Outcome) -> Result<Output> {
        let before = self.world()?;
        let output = self.outside.of(start).run()?;
        judge(&output, outcome)?;
        self.expect_world(&before)?;
        Ok(output)
    }

    fn expect_world(&self, before: &[String]) -> Result<()> {
        let now = self.world()?;
        let gone = before.iter().filter(|line| !now.contains(line));
        let new = now.iter().filter(|line| !before.contains(line));
        let changes: Vec<_> = gone.chain(new).collect();
        ensure!(changes.is_empty(), "the host has changed: {changes:#?}");
        Ok(())
    }

    /// Everything in the folder, and what is mounted on that host. A file that
    /// was changed in any way has another time of change.
    fn world(&self) -> Result<Vec<String>> {
        let mounts = self.outside.mounts()?;
        let mut lines: Vec<_> = mounts.lines().map(str::to_owned).collect();
        describe(self.subject.sandbox.dir(), &mut lines)?;
        Ok(lines)
    }

    /// The same while another thing stands where `name` does.
    fn expect_with(
        &self,
        name: &str,
        thing: &Thing,
        outcome: Outcome,
    ) -> Result<()> {
        let (place, aside) = (self.path(name), self.path("aside"));
        fs::rename(&place, &aside)?;
        thing.put(&place)?;
        if place.symlink_metadata().is_ok() {
            self.subject.sandbox.give_away(&place)?;
        }
        let result = self.expect(self.shell(), outcome);
        remove(&place)?;
        fs::rename(&aside, &place)?;
        result.with_context(|| format!("with {thing:?} for {name}"))?;
        Ok(())
    }
}

fn judge(output: &Output, outcome: Outcome) -> Result<()> {
    match outcome {
        Works => {
            output.expect_status(0)?.expect_out(WHOLE)?;
            ensure!(output.complaints().is_empty(), "complaints: {output}");
        }
        Ends(status) => {
            output.expect_status(status)?.expect_out("")?;
        }
        Fails(status, names, hint) => {
            output.expect_failure(status, names)?.expect_out("")?;
            let said = output.complaints().pop().unwrap_or_default();
            ensure!(said.contains(hint), "no hint with {hint:?}: {output}");
        }
    }
    Ok(())
}

fn describe(path: &Path, lines: &mut Vec<String>) -> Result<()> {
    let meta = path.symlink_metadata()?;
    lines.push(format!(
        "{path:?}: mode {:o}, {}:{}, size {}, inode {}, changed {}.{}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.size(),
        meta.ino(),
        meta.ctime(),
        meta.ctime_nsec()
    ));
    if meta.is_dir() {
        // Not each is open to us.
        for entry in fs::read_dir(path).into_iter().flatten() {
            describe(&entry?.path(), lines)?;
        }
    }
    Ok(())
}

fn proc_may_be_anything(subject: &Subject) -> Result<()> {
    on_a_site(subject, |site| {
        for name in ["realproc", "victim-inside"] {
            let inside = site.path("fs").join(name);
            fs::create_dir(&inside)?;
            subject.sandbox.give_away(&inside)?;
        }
        symlink("/realproc", site.path("fs/chain"))?;
        let no_link = Fails(125, "proc", "`rm ");
        // A proc on the root itself: there is no more than that.
        let all_proc = match subject.step {
            5 => Fails(127, "cannot run", ""),
            _ => Fails(125, "/dev", ""),
        };
        for (thing, outcome) in [
            (Nothing, Fails(125, "proc", "`mkdir -p ")),
            (Thing::File, Fails(125, "proc", "`mv ")),
            (Fifo, Fails(125, "proc", "`mv ")),
            (Folder, Works),
            // What it is inside counts: there is no such thing.
            (link(site.victim()), no_link),
            (link(site.climb()), no_link),
            (link("../victim"), no_link),
            (link("/../victim/proc"), no_link),
            (link("proc"), no_link),
            (link("bin/sh"), no_link),
            (link("realproc"), Works),
            (link("/realproc"), Works),
            (link("../../realproc"), Works),
            (link("bin/../chain"), Works),
            (link("/etc"), Works),
            (link("."), all_proc),
            (link("/"), all_proc),
            (link(".."), all_proc),
        ] {
            let outcome = if subject.step < 5 { Works } else { outcome };
            site.expect_with("fs/proc", &thing, outcome)?;
        }
        Ok(())
    })
}

fn dev_may_be_anything(subject: &Subject) -> Result<()> {
    on_a_site(subject, |site| {
        let no_link = Fails(125, "/dev", "`rm ");
        for (thing, outcome) in [
            (Nothing, Fails(125, "/dev", "`mkdir -p ")),
            (Thing::File, Fails(125, "/dev", "`mv ")),
            (Fifo, Fails(125, "/dev", "`mv ")),
            (Folder, Works),
            // `..` still leads to the host when devices are made.
            (link(site.victim()), no_link),
            (link(site.climb()), no_link),
            (link(Path::new("..").join(site.climb())), no_link),
            (link("../dev"), no_link),
            (link("../victim"), no_link),
            (link("/bin"), no_link),
            (link("bin/sh"), no_link),
            (link("dev"), no_link),
            (link("."), no_link),
            (link(".."), no_link),
            (link("/proc/1/root/dev"), no_link),
            (link("/proc/self/cwd"), no_link),
        ] {
            let outcome = if subject.step < 6 { Works } else { outcome };
            site.expect_with("fs/dev", &thing, outcome)?;
        }
        Ok(())
    })
}

/// A tmpfs covers it, and nothing below is opened.
fn what_is_in_dev_stays_below(subject: &Subject) -> Result<()> {
    on_a_site(subject, |site| {
        let dev = site.path("fs/dev");
        Fifo.put(&dev.join("null"))?;
        link(site.climb().join("file")).put(&dev.join("zero"))?;
        link("../../victim/file").put(&dev.join("full"))?;
        Folder.put(&dev.join("random"))?;
        Thing::File.put(&dev.join("urandom"))?;
        link("tty").put(&dev.join("tty"))?;
        link(site.victim()).put(&dev.join("fd"))?;
        Folder.put(&dev.join("stdin"))?;
        subject.sandbox.give_away(&dev)?;
        site.expect(site.shell(), Works)?;
        // Without any rights, too.
        for name in ["fs/dev", "fs/proc"] {
            fs::set_permissions(
                site.path(name),
                Permissions::from_mode(0o000),
            )?;
        }
        site.expect(site.shell(), Works)?;
        let open = Permissions::from_mode(0o755);
        fs::set_permissions(dev, open)?;
        Ok(())
    })
}

fn links_out_are_followed_inside(subject: &Subject) -> Result<()> {
    on_a_site(subject, |site| {
        // A shell of the host, which must not run.
        fs::rename(site.path("fs/bin"), site.path("victim/bin"))?;
        fs::create_dir(site.path("fs/bin"))?;
        let climb = site.climb();
        for (to, outcome) in [
            (site.path("victim/bin"), Fails(127, "/bin/sh", "fs/bin is a sym")),
            (climb.join("bin"), Fails(127, "/bin/sh", "fs/bin is a sym")),
            ("../victim/bin".into(), Fails(127, "/bin/sh", "fs/bin is a sym")),
            ("bin".into(), Fails(126, "/bin/sh", "")),
        ] {
            site.expect_with("fs/bin", &link(to), outcome)?;
        }
        fs::rename(site.path("victim/bin"), site.path("fs/programs"))?;
        for to in ["programs", "/programs", "../../../programs"] {
            site.expect_with("fs/bin", &link(to), Works)?;
        }
        fs::remove_dir(site.path("fs/bin"))?;
        link("programs").put(&site.path("fs/bin"))?;
        for name in ["fs/etc", "fs/root", "fs/tmp", "fs/sys"] {
            for thing in [link(site.victim()), link(site.climb()), Nothing] {
                site.expect_with(name, &thing, Works)?;
            }
        }
        Ok(())
    })
}

fn the_default_root_may_be_anything(subject: &Subject) -> Result<()> {
    on_a_site(subject, |site| {
        let no_folder = Fails(125, "fs", "is not a directory");
        for (thing, outcome) in [
            (Thing::File, no_folder),
            (Fifo, no_folder),
            (link("secret"), no_folder),
            (link("nowhere"), Fails(125, "fs", "leads to nowhere, which")),
            (link("victim/no"), Fails(125, "fs", "leads to victim/no, which")),
            (link("fs"), Fails(125, "ELOOP", "")),
            (link("aside"), Works),
            (link("victim/../aside/."), Works),
        ] {
            site.expect_with("fs", &thing, outcome)?;
        }
        let nothing_in_it = match subject.step {
            4 => Fails(127, "/bin/sh", ""),
            _ => Fails(125, "proc", "`mkdir -p "),
        };
        site.expect_with("fs", &Folder, nothing_in_it)?;
        // Half a root, which a killed builder of another kind left there.
        site.expect_with(
            "fs",
            &link("victim"),
            Fails(
                if subject.step < 6 { 127 } else { 125 },
                if subject.step < 6 { "/bin/sh" } else { "/dev" },
                "",
            ),
        )
    })
}

/// What step04 and step05 make of it is no container, and yet no harm: the
/// host's own /proc is not covered.
fn the_root_of_all_is_no_victim(subject: &Subject) -> Result<()> {
    on_a_site(subject, |site| {
        let outcome = match subject.step {
            // The secret is there to be seen.
            ..6 => Ends(12),
            _ => Fails(125, "pivot_root", "name another directory"),
        };
        for root in ["/", "//", "/.", "/proc/..", "/proc/self/root"] {
            site.expect(site.shell_in(root), outcome).context(root)?;
        }
        site.expect_with("fs", &link("/"), outcome)
    })
}

fn a_root_may_be_named_in_many_ways(subject: &Subject) -> Result<()> {
    on_a_site(subject, |site| {
        symlink("fs", site.path("link"))?;
        symlink(site.path("link"), site.path("link-to-link"))?;
        let absolute = site.path("fs");
        for root in [
            Path::new("fs/"),
            Path::new("fs/."),
            Path::new("./fs"),
            Path::new("fs/../fs"),
            Path::new("fs//bin/.."),
            Path::new("link"),
            Path::new("link-to-link/"),
            Path::new("/proc/self/cwd/fs"),
            &absolute,
        ] {
            let found = site.expect(site.shell_in(root), Works);
            found.with_context(|| format!("{root:?}"))?;
        }
        for (root, at) in [(".", "fs"), ("..", "fs/proc"), ("../fs", "fs")] {
            let start = site.shell_in(root).current_dir(site.path(at));
            site.expect(start, Works).context(root)?;
        }
        for (root, outcome) in [
            ("nowhere", Fails(125, "nowhere", "there is no nowhere")),
            ("no/where", Fails(125, "no/where", "there is no no:")),
            ("secret", Fails(125, "secret", "is not a directory")),
            ("secret/fs", Fails(125, "secret", "secret is not a directory")),
        ] {
            site.expect(site.shell_in(root), outcome).context(root)?;
        }
        // That is a wrong command line.
        let output = site.outside.of(site.shell_in("")).run()?;
        output.expect_status(2)?;
        Ok(())
    })
}

/// Names with which a careless program would do something else.
const NAMES: &[&[u8]] = &[
    b"a b",
    b"it's",
    b"two\nlines\n",
    b"\x80\xff",
    b"$(touch touched)",
    b"\"; touch touched; \"",
    b"\\040\\012",
    b"\x1b[31mred",
    b"*",
    b"lower,upper:dir=x",
];

fn a_root_may_have_any_name(subject: &Subject) -> Result<()> {
    on_a_site(subject, |site| {
        let others: [&[u8]; 3] = [b"-", b"--hostname", b"run"];
        for name in NAMES.iter().copied().chain(others) {
            let name = OsStr::from_bytes(name);
            // Before it is there: a line, or two with the hint.
            let absent = Fails(125, "cannot use", "there is no ");
            site.expect(site.shell_in(name), absent)?;
            fs::rename(site.path("fs"), site.path(name))?;
            let found = site.expect(site.shell_in(name), Works);
            fs::rename(site.path(name), site.path("fs"))?;
            found.with_context(|| format!("{name:?}"))?;
        }
        Ok(())
    })
}

/// The commands in a hint come from paths that somebody else may have chosen.
fn what_a_hint_says_can_be_pasted(subject: &Subject) -> Result<()> {
    if !Path::new("/bin/bash").exists() {
        return Err(skip("needs bash"));
    }
    on_a_site(subject, |site| {
        for name in NAMES {
            let name = OsStr::from_bytes(name);
            let root = site.path(name);
            fs::rename(site.path("fs"), &root)?;
            fs::remove_dir(root.join("proc"))?;
            let absent = Fails(125, "cannot mount proc", "`mkdir -p ");
            let output = site.expect(site.shell_in(name), absent)?;
            let hint = output.complaints().pop().context("no hint")?;
            let command = hint.split('`').nth(1).context("no command")?;
            let mut pasted = Command::new("/bin/bash");
            pasted.args(["-c", command]).current_dir(site.path(""));
            let status = pasted.env("LC_ALL", "C.UTF-8").status()?;
            ensure!(status.success(), "{command}");
            let is_there = root.join("proc").is_dir();
            ensure!(is_there, "{name:?} is something else in {command}");
            let found = site.expect(site.shell_in(name), Works);
            found.with_context(|| format!("{name:?}"))?;
            fs::rename(&root, site.path("fs"))?;
        }
        ensure!(!site.path("touched").exists(), "it was executed");
        Ok(())
    })
}

/// The kernel takes paths of at most 4,095 bytes; a relative one may lead to
/// a folder whose full name is longer.
fn a_path_may_be_long(subject: &Subject) -> Result<()> {
    /// Folders in each other, so that their path has so many bytes.
    fn folders(mut length: usize) -> PathBuf {
        let mut path = PathBuf::new();
        while length > 201 {
            path.push("d".repeat(199));
            length -= 200;
        }
        path.join("e".repeat(length))
    }
    on_a_site(subject, |site| {
        let here = site.path("").as_os_str().len();
        let upper = folders(4000 - here - "/fs".len());
        let root = upper.join("fs");
        fs::create_dir_all(site.path(&upper))?;
        fs::rename(site.path("fs"), site.path(&root))?;
        subject.sandbox.give_away(&site.path(upper.iter().next().unwrap()))?;
        ensure!(site.path(&root).as_os_str().len() == 4000, "a mistake");
        site.expect(site.shell_in(&root), Works)?;
        site.expect(site.shell_in(site.path(&root)), Works)?;
        let proc = site.path(&root).join("proc");
        fs::remove_dir(&proc)?;
        let absent = match subject.step {
            4 => Works,
            _ => Fails(125, "proc", "`mkdir -p "),
        };
        site.expect(site.shell_in(&root), absent)?;
        fs::create_dir(&proc)?;
        subject.sandbox.give_away(&proc)?;

        let too_long = Fails(125, "ENAMETOOLONG", "");
        site.expect(site.shell_in(folders(4096)), too_long)?;
        site.expect(site.shell_in("n".repeat(256)), too_long)?;

        // From a folder further down the same root has a short name.
        let (lower, below) = (folders(2000), folders(2200 - here));
        fs::create_dir_all(site.path(&below))?;
        let moved = site.path("moved");
        fs::create_dir_all(moved.join(&lower))?;
        fs::rename(site.path(&root), moved.join(&lower).join("fs"))?;
        fs::rename(&moved, site.path(&below).join("moved"))?;
        let outcome = match subject.step {
            ..6 => Works,
            // Its full name is needed there.
            _ => too_long,
        };
        let root = Path::new("moved").join(lower).join("fs");
        let start = site.shell_in(root).current_dir(site.path(below));
        // The kit has full names only.
        judge(&site.outside.of(start).run()?, outcome)
    })
}

/// A root that we may neither write nor, in the end, read or pass through.
fn a_root_of_somebody_else(subject: &Subject) -> Result<()> {
    if Caller::own() != Caller::Root {
        return Err(skip("only root can give a root to somebody else"));
    }
    on_a_site(subject, |site| {
        let root = site.path("fs");
        let everything = |what: &mut dyn FnMut(&Path) -> Result<()>| {
            let mut paths = vec![root.clone()];
            while let Some(path) = paths.pop() {
                what(&path)?;
                if path.symlink_metadata()?.is_dir() {
                    for entry in fs::read_dir(&path)? {
                        paths.push(entry?.path());
                    }
                }
            }
            anyhow::Ok(())
        };
        everything(&mut |path| {
            if !path.is_symlink() {
                let mode = path.metadata()?.mode() & 0o555;
                chown(path, Some(0), Some(0))?;
                fs::set_permissions(path, Permissions::from_mode(mode))?;
            }
            Ok(())
        })?;
        site.expect(site.shell(), Works).context("read-only")?;
        for name in ["fs", "fs/proc", "fs/dev"] {
            let mode = Permissions::from_mode(0o711);
            fs::set_permissions(site.path(name), mode)?;
        }
        site.expect(site.shell(), Works).context("unreadable")?;
        fs::set_permissions(&root, Permissions::from_mode(0o700))?;
        let closed = match subject.caller {
            Caller::Root => Works,
            Caller::User => Fails(125, "EACCES", "fs does not let uid "),
        };
        site.expect(site.shell(), closed).context("closed")?;
        // A folder on the way, and the launcher sees it already.
        fs::create_dir(site.path("closed"))?;
        fs::rename(&root, site.path("closed/fs"))?;
        let mode = Permissions::from_mode(0o755);
        fs::set_permissions(site.path("closed/fs"), mode)?;
        let mode = Permissions::from_mode(0o700);
        fs::set_permissions(site.path("closed"), mode)?;
        let closed = match subject.caller {
            Caller::Root => Works,
            Caller::User => Fails(125, "EACCES", "closed does not let uid "),
        };
        site.expect(site.shell_in("closed/fs"), closed)?;
        Ok(())
    })
}

/// A mount in the kit's own mount table. Dropped, it goes.
struct Mounted(PathBuf);

impl Mounted {
    fn new(
        source: &Path,
        at: PathBuf,
        kind: Option<&str>,
        flags: MsFlags,
        data: Option<&str>,
    ) -> Result<Self> {
        if Caller::own() != Caller::Root {
            return Err(skip("only root can mount something first"));
        }
        mount(Some(source), &at, kind, flags, data)
            .with_context(|| format!("cannot mount on {}", at.display()))?;
        Ok(Self(at))
    }

    fn tmpfs(at: PathBuf, flags: MsFlags) -> Result<Self> {
        let data = Some("mode=755");
        Self::new(Path::new("tmpfs"), at, Some("tmpfs"), flags, data)
    }

    fn bind(from: &Path, at: PathBuf, flags: MsFlags) -> Result<Self> {
        let mounted = Self::new(from, at, None, MsFlags::MS_BIND, None)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
        mount(None::<&str>, &mounted.0, None::<&str>, flags, None::<&str>)?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// The same folder on a host of its own, on which that is mounted by now.
fn on_the_mount(
    subject: &Subject,
    root: &str,
    outcome: Outcome,
) -> Result<Output> {
    let site = Site { subject, outside: Outside::new(subject)? };
    site.expect(site.shell_in(root), outcome).context(root.to_owned())
}

fn a_root_on_any_mount(subject: &Subject) -> Result<()> {
    subject.apart(|subject| {
        let at = subject.path("mount");
        fs::create_dir(&at)?;
        let root = subject.sandbox.fs();
        {
            let _mount = Mounted::bind(&root, at.clone(), MsFlags::MS_RDONLY)?;
            on_the_mount(subject, "mount", Works)?;
            on_the_mount(subject, "mount/../mount/.", Works)?;
        }
        {
            let _mount = Mounted::bind(&root, root.clone(), MsFlags::empty())?;
            on_the_mount(subject, "fs", Works)?;
        }
        // Nothing but data may be there; then nothing can run there either.
        let noexec = MsFlags::MS_NOEXEC;
        let all = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
        let no_program = Fails(126, "/bin/sh", "is mounted noexec");
        for (flags, outcome) in [(all, Works), (noexec, no_program)] {
            let _mount = Mounted::bind(&root, at.clone(), flags)?;
            on_the_mount(subject, "mount", outcome)?;
        }
        // Its own file system, the root at its top and in a folder of it.
        for (root, flags, outcome) in [
            ("mount", MsFlags::empty(), Works),
            ("mount", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Works),
            ("mount/fs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Works),
            ("mount/fs", MsFlags::MS_NOEXEC, no_program),
        ] {
            let _mount = Mounted::tmpfs(at.clone(), flags)?;
            let to = subject.path(root);
            let mut copy = Command::new("cp");
            let fs = subject.path("fs/.");
            fs::create_dir_all(&to)?;
            ensure!(copy.arg("-a").args([fs, to]).status()?.success(), "cp");
            on_the_mount(subject, root, outcome)?;
        }
        Ok(())
    })
}

fn a_root_on_overlayfs(subject: &Subject) -> Result<()> {
    subject.apart(|subject| {
        // The upper folder may not be on an overlay itself.
        let tmpfs = subject.path("tmpfs");
        fs::create_dir(&tmpfs)?;
        let _tmpfs = Mounted::tmpfs(tmpfs.clone(), MsFlags::empty())?;
        for name in ["upper", "work", "root"] {
            fs::create_dir(tmpfs.join(name))?;
        }
        subject.sandbox.give_away(&tmpfs)?;
        let data = format!(
            "lowerdir={},upperdir={},workdir={}",
            subject.sandbox.fs().display(),
            tmpfs.join("upper").display(),
            tmpfs.join("work").display()
        );
        let overlay = Some("overlay");
        let none = MsFlags::empty();
        let at = tmpfs.join("root");
        let mounted =
            Mounted::new(Path::new("o"), at, overlay, none, Some(&data));
        let _mount = match mounted {
            Err(error)
                if error.downcast_ref::<Errno>() == Some(&Errno::ENODEV) =>
            {
                return Err(skip("needs overlayfs"));
            }
            mounted => mounted?,
        };
        on_the_mount(subject, "tmpfs/root", Works)?;
        // As in an image: nothing of the layer below changes.
        let write = ["sh", "-c", "echo new > /etc/new; cat /etc/new"];
        let output =
            subject.start(write).options(["--rootfs", "tmpfs/root"]).run()?;
        output.expect_status(0)?.expect_out("new\n")?;
        ensure!(!subject.path("fs/etc/new").exists(), "written below");
        Ok(())
    })
}

/// They belong to it, whoever shares them with whom.
fn mounts_below_a_root(subject: &Subject) -> Result<()> {
    subject.apart(|subject| {
        let (tmp, none) = (subject.path("fs/tmp"), None::<&str>);
        let _tmp = Mounted::tmpfs(tmp.clone(), MsFlags::empty())?;
        fs::write(tmp.join("there"), "below\n")?;
        for propagation in
            [MsFlags::MS_SHARED, MsFlags::MS_PRIVATE, MsFlags::MS_UNBINDABLE]
        {
            mount(none, &tmp, none, propagation, none)?;
            on_the_mount(subject, "fs", Works)
                .with_context(|| format!("{propagation:?}"))?;
            // It is made private before the root is bound.
            let output = subject.start(["cat", "/tmp/there"]).run()?;
            output.expect_status(0)?.expect_out("below\n")?;
        }
        // Where proc and the devices go there is something already.
        let read_only = MsFlags::MS_RDONLY;
        for name in ["fs/proc", "fs/dev"] {
            let _mount = Mounted::tmpfs(subject.path(name), read_only)?;
            on_the_mount(subject, "fs", Works).context(name)?;
        }
        let dev = subject.path("fs/dev");
        let _dev = Mounted::bind(Path::new("/dev"), dev, MsFlags::empty())?;
        if subject.step >= 6 {
            on_the_mount(subject, "fs", Works).context("/dev on /dev")?;
        }
        Ok(())
    })
}

/// Starts that with a stderr in which there is room for one banner: so the
/// child waits while its root is changed.
fn while_the_child_waits(
    site: &Site,
    change: impl FnOnce() -> Result<()>,
) -> Result<Output> {
    const ROOM: i32 = 4096;
    let program = ["/bin/sh", "-c", "echo looked around"];
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let (mut reader, writer) = (File::from(reader), File::from(writer));
    let size = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(ROOM))?;
    ensure!(size == ROOM, "no pipe of one page");
    // Of the longest PID; the child's is 1, and one letter too long.
    let banner = format!("running {program:?} as 4194304\n").len();
    let filler = vec![b'.'; ROOM as usize - banner];
    (&writer).write_all(&filler)?;
    let start = site.subject.start(program).stderr(Stdio::from(writer));
    let running = site.outside.of(start).spawn()?;
    let is_child =
        |args: &[OsString]| args.get(1).is_some_and(|arg| arg == "child");
    running.find("child", is_child)?;
    change()?;
    let all = thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map(|_| all)
    });
    let output = running.wait();
    // Killed, when it hangs: then the pipe has its end.
    if output.is_err() {
        process::kill_left_behind();
    }
    let Ok(all) = all.join() else { bail!("the reader panicked") };
    Ok(Output { stderr: all?.split_off(filler.len()), ..output? })
}

fn a_root_that_changes_meanwhile(subject: &Subject) -> Result<()> {
    on_a_site(subject, |site| {
        // Nothing but a shell that says something else.
        let other = site.path("other");
        fs::create_dir(&other)?;
        for name in ["proc", "dev"] {
            fs::create_dir(other.join(name))?;
        }
        subject.sandbox.give_away(&other)?;
        let gone = match subject.step {
            4 => Fails(125, "chroot", "there is no fs"),
            5 => Fails(125, "proc", "there is no fs"),
            _ => Fails(125, "bind mount", "there is no fs"),
        };
        let in_the_way = match subject.step {
            4 => Fails(125, "chroot", "is not a directory"),
            _ => Fails(125, "proc", "is not a directory"),
        };
        let empty = match subject.step {
            4 => Fails(127, "/bin/sh", ""),
            _ => Fails(125, "proc", "`mkdir -p "),
        };
        let all = match subject.step {
            ..6 => Works,
            _ => Fails(125, "pivot_root", "name another directory"),
        };
        for (thing, outcome) in [
            (Nothing, gone),
            (link("nowhere"), Fails(125, "", "leads to nowhere, which")),
            (link("fs"), Fails(125, "ELOOP", "")),
            (Thing::File, in_the_way),
            (Fifo, in_the_way),
            (Folder, empty),
            // It is named, and so it is the root: nothing of it is written.
            (link("other"), Fails(127, "/bin/sh", "")),
            (link("aside"), Works),
            (link("/"), all),
        ] {
            let (place, aside) = (site.path("fs"), site.path("aside"));
            let mut before = Vec::new();
            let output = while_the_child_waits(site, || {
                fs::rename(&place, &aside)?;
                thing.put(&place)?;
                if place.symlink_metadata().is_ok() {
                    subject.sandbox.give_away(&place)?;
                }
                before = site.world()?;
                Ok(())
            });
            let result = output.and_then(|output| {
                judge(&output, outcome)?;
                site.expect_world(&before)
            });
            remove(&place)?;
            fs::rename(&aside, &place)?;
            result.with_context(|| format!("with {thing:?} for fs"))?;
        }
        Ok(())
    })
}

/// Whoever owns the root can exchange `dev` between two system calls: what is
/// then made in it must not be made on the host.
fn dev_is_not_exchanged_meanwhile(subject: &Subject) -> Result<()> {
    on_a_site(subject, |site| {
        let found = Command::new("strace").arg("-V").output();
        if found.is_err() {
            return Err(skip("needs strace"));
        }
        // A folder with what would lead on from there.
        let trap = site.path("trap");
        fs::create_dir(&trap)?;
        for name in ["null", "zero", "full", "random", "urandom", "tty"] {
            symlink(site.climb().join("file"), trap.join(name))?;
        }
        subject.sandbox.give_away(&trap)?;
        let (dev, aside) = (site.path("fs/dev"), site.path("aside"));
        // After the fourth mount, that of the tmpfs, PID 1 waits so long.
        let options = [
            "-f",
            "-qq",
            "-o/dev/null",
            "-etrace=mount",
            "-einject=mount:delay_exit=1500000:when=4",
        ];
        let is_child =
            |args: &[OsString]| args.get(1).is_some_and(|arg| arg == "child");
        let run = |exchange: &dyn Fn() -> Result<()>| -> Result<()> {
            let start = site.shell().through("strace", options);
            let running = site.outside.of(start).spawn()?;
            let child = running.find("child", is_child)?;
            process::wait_for("tmpfs", SOON, || {
                let mounts = child.read("mountinfo")?;
                Ok(mounts.contains("size=64k").then_some(()))
            })?;
            fs::rename(&dev, &aside)?;
            exchange()?;
            let before = site.world()?;
            let output = running.wait()?;
            site.expect_world(&before)?;
            output.expect_failure(125, "/dev")?;
            Ok(())
        };
        let linked = run(&|| Ok(symlink(site.climb(), &dev)?));
        remove(&dev)?;
        fs::rename(&aside, &dev)?;
        linked.context("with a link")?;
        let trapped = run(&|| Ok(fs::rename(&trap, &dev)?));
        fs::rename(&dev, &trap)?;
        fs::rename(&aside, &dev)?;
        trapped.context("with another folder")
    })
}
