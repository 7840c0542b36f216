//! Who is measured.

use std::process::{Command, Stdio};

use suite::Caller;
use suite::cgroup::{Hierarchy, hierarchies};

use super::room::{Room, STATIC, TRUE, WAIT, find};
use crate::step::Step;

/// The one that all others are divided by.
pub const FLOOR: &str = "the floor, in C";
/// The same, started a second time as the steps are.
pub const TWICE: &str = "the floor, with a second execve";
/// The same, with control groups as step07 has them.
pub const GROUPS: &str = "the floor, with control groups";
/// The container that the steps go back to.
pub const ORIGINAL: &str = "the original, in Go";

/// A program that makes containers.
pub struct Contestant {
    pub name: String,
    /// The file of which the size counts.
    pub program: String,
    before: Vec<String>,
    takes_bundles: bool,
    room: String,
}

/// What a container does.
#[derive(Clone, Copy)]
pub enum Job {
    /// Nothing.
    True,
    /// Says that it is there, and ends with its stdin.
    Wait,
}

/// Stands for a number in a command that is to be run many times at once.
pub const NUMBER: &str = "{}";

impl Contestant {
    /// The words of a command. A bundle's name is `id`.
    pub fn command(&self, job: Job, id: &str) -> Vec<String> {
        let mut words = self.before.clone();
        let (bundle, inside) = match job {
            Job::True => ("true", TRUE),
            Job::Wait => ("wait", WAIT),
        };
        if self.takes_bundles {
            let bundle = format!("{}/{bundle}", self.room);
            let more = ["run", "--bundle", &bundle, id].map(str::to_owned);
            words.extend(more);
        } else {
            words.extend(inside.iter().map(|word| (*word).to_owned()));
        }
        words
    }

    /// Why it makes no container here, if that is so.
    fn complaint(&self) -> Option<String> {
        let words = self.command(Job::True, "trial");
        let tried = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .output();
        let output = match tried {
            Ok(output) if output.status.success() => return None,
            Ok(output) => output,
            Err(error) => return Some(error.to_string()),
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        let line = errors.lines().find(|l| !l.starts_with("running "));
        Some(line.unwrap_or("it fails, and does not say why").to_owned())
    }
}

/// All who make a container here, and why the others do not.
pub fn all(room: &Room) -> (Vec<Contestant>, Vec<(String, String)>) {
    let (mut here, mut left_out) = (vec![], vec![]);
    let path = room.path().to_string_lossy().into_owned();
    let mut add = |name: &str, words: &[&str], takes_bundles: bool| {
        let one = Contestant {
            name: name.to_owned(),
            program: words[0].to_owned(),
            before: words.iter().map(|word| (*word).to_owned()).collect(),
            takes_bundles,
            room: path.clone(),
        };
        match one.complaint() {
            None => here.push(one),
            Some(why) => left_out.push((name.to_owned(), why)),
        }
    };
    let floor = format!("{path}/floor");
    add(FLOOR, &[&floor, "fs"], false);
    add(TWICE, &[&floor, "-x", "fs"], false);
    let groups = groups();
    let mut words = vec![&*floor];
    groups.iter().for_each(|group| words.extend(["-g", group]));
    words.push("fs");
    add(GROUPS, &words, false);
    for step in Step::all() {
        let program = format!("{path}/{}", step.package());
        add(&step.to_string(), &[&program, "run"], false);
    }
    for name in STATIC {
        let program = format!("{path}/{name}.static");
        let (step, _) = name.split_once('-').unwrap_or((name, ""));
        add(&format!("{step}, static"), &[&program, "run"], false);
    }
    let original = format!("{path}/original");
    add(ORIGINAL, &[&original, "run"], false);
    for peer in peers(&path) {
        let words: Vec<_> = peer.words.iter().map(|word| &**word).collect();
        add(peer.name, &words, peer.takes_bundles);
    }
    // A program that is not there says so in words of its own.
    for (name, why) in &mut left_out {
        if why.contains("os error 2") {
            let known = name.contains("static") || name == ORIGINAL;
            *why = if known { "not compiled" } else { "not installed" }.into();
        }
    }
    (here, left_out)
}

struct Peer {
    name: &'static str,
    words: Vec<String>,
    takes_bundles: bool,
}

fn peers(room: &str) -> Vec<Peer> {
    let root = format!("{room}/fs");
    let user = Caller::own() == Caller::User;
    let peer = |name, program: &str, words: String, takes_bundles| {
        let program = find(program).unwrap_or(program.into());
        let words = words.split('\n').filter(|word| !word.is_empty());
        let words = words.map(str::to_owned);
        let program = [program.to_string_lossy().into_owned()];
        let words = program.into_iter().chain(words).collect();
        Peer { name, words, takes_bundles }
    };
    let as_user = if user { "--user\n--map-root-user\n" } else { "" };
    vec![
        peer(
            "unshare",
            "unshare",
            format!(
                "{as_user}--fork\n--kill-child\n--pid\n--uts\n--mount\n\
                 --mount-proc\n--root={root}"
            ),
            false,
        ),
        peer(
            "bubblewrap",
            "bwrap",
            format!(
                "--unshare-pid\n--unshare-uts\n--hostname\ncontainer\n--bind\n\
                 {root}\n/\n--proc\n/proc\n--dev\n/dev\n--die-with-parent"
            ),
            false,
        ),
        peer(
            "crun, without control groups",
            "crun",
            format!("--root\n{room}/crun\n--cgroup-manager\ndisabled"),
            true,
        ),
        peer("crun", "crun", format!("--root\n{room}/crun"), true),
        peer("runc", "runc", format!("--root\n{room}/runc"), true),
        peer(
            "podman",
            "podman",
            format!(
                "--root\n{room}/podman\n--runroot\n{room}/podman.run\nrun\n\
                 --rm\n-i\n--network\nnone\n--rootfs\n{root}"
            ),
            false,
        ),
    ]
}

/// Where step07 makes its groups: one for each hierarchy that has what it
/// limits without being asked, in version 2 below one that hands it down.
fn groups() -> Vec<String> {
    let limits = |hierarchy: &&Hierarchy| {
        ["pids", "memory"].iter().any(|it| hierarchy.controllers.contains(it))
    };
    let place = |hierarchy: &Hierarchy| {
        let hands_down = |folder: &std::path::Path| {
            let file = folder.join("cgroup.subtree_control");
            let words = std::fs::read_to_string(file).unwrap_or_default();
            words.split_whitespace().any(|word| word == "pids")
        };
        let mut above = hierarchy.own.ancestors();
        let place = match hierarchy.is_v2 {
            true => above.find(|folder| hands_down(folder)),
            false => above.next(),
        };
        place.unwrap_or(&hierarchy.own).to_string_lossy().into_owned()
    };
    let all = hierarchies().unwrap_or_default();
    all.iter().filter(limits).map(place).collect()
}
