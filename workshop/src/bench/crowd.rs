//! Many containers at once: starts them, waits until all are there, lets them
//! end, and waits for that. hyperfine sees how long it takes.

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use suite::process::{self, Process, below};

use super::contestant::NUMBER;
use super::footprint;

/// The next one takes longer only if it never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts and ends them.
pub fn run(number: usize, command: &[String]) -> Result<()> {
    start(number, command)?.end()
}

/// What each of them adds to the memory in use, in KiB: launchers and PID 1s,
/// without the commands. What several share is divided among them.
pub fn memory(number: usize, command: &[String]) -> Result<f64> {
    let crowd = start(number, command)?;
    let own = below(process::own());
    let used = own.into_iter().filter(|one| !footprint::is_command(*one));
    let used: u64 = used.map(|one| footprint::rollup(one, &["Pss"])).sum();
    crowd.end()?;
    Ok(used as f64 / number.max(1) as f64)
}

struct Crowd {
    containers: Vec<Child>,
    stdin: File,
}

fn start(number: usize, command: &[String]) -> Result<Crowd> {
    let (read, stdin) = pipe2(OFlag::O_CLOEXEC)?;
    let (output, write) = pipe2(OFlag::O_CLOEXEC)?;
    let (read, mut output) = (File::from(read), File::from(output));
    let write = File::from(write);
    let mut crowd = Crowd { containers: vec![], stdin: File::from(stdin) };
    let (said, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(length @ 1..) = output.read(&mut some) {
            let _ = said.send(length);
        }
    });
    for n in 0..number {
        let id = format!("{}-{n}", process::own().0);
        let words = command.iter().map(|word| word.replace(NUMBER, &id));
        let words: Vec<_> = words.collect();
        let child = Command::new(words.first().context("no command")?)
            .args(&words[1..])
            .stdin(Stdio::from(read.try_clone()?))
            .stdout(Stdio::from(write.try_clone()?))
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start container {n}"))?;
        crowd.containers.push(child);
    }
    drop((read, write));
    let mut there = 0;
    while there < number {
        match heard.recv_timeout(PATIENCE) {
            Ok(more) => there += more,
            Err(_) => bail!("{there} of {number} containers started"),
        }
    }
    Ok(crowd)
}

impl Crowd {
    fn end(self) -> Result<()> {
        drop(self.stdin);
        for mut container in self.containers {
            // `read` fails at the end of its input.
            let status = container.wait()?;
            if status.code().is_none_or(|code| code > 1) {
                bail!("a container ended with {status}");
            }
        }
        Ok(())
    }
}

/// One of them, with its process.
pub fn one(
    command: &[String],
) -> Result<(Process, impl FnOnce() -> Result<()>)> {
    let crowd = start(1, command)?;
    let launcher = crowd.containers.first().context("no container")?;
    let launcher = Process(i32::try_from(launcher.id())?);
    Ok((launcher, || crowd.end()))
}
