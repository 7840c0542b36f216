//! Shells on a real terminal. Every step.

use std::ffi::OsStr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::harness::{Test, skip};
use crate::process::{self, Process, settles};
use crate::program::Subject;
use crate::terminal::Terminal;
use crate::tests;

/// For every step.
pub const TESTS: &[Test] = tests![needs container:
    sh_has_job_control,
    bash_has_job_control,
    job_control_below_a_shell,
    ctrl_c_arrives_once,
    ctrl_z_stops_no_container,
    ctrl_d_ends_the_shell,
];

/// A prompt that is told from the line that sets it.
pub(super) const SET_PROMPT: &str = "unset HISTFILE; PS1='pro''mpt> '\n";
pub(super) const PROMPT: &str = "prompt> ";
pub(super) const CTRL_C: &str = "\x03";
pub(super) const CTRL_D: &str = "\x04";
pub(super) const CTRL_Z: &str = "\x1a";

fn sh_has_job_control(subject: &Subject) -> Result<()> {
    session(subject, "/bin/sh")
}

fn bash_has_job_control(subject: &Subject) -> Result<()> {
    has_bash(subject)?;
    session(subject, "bash")
}

/// Skips where there is none.
pub(super) fn has_bash(subject: &Subject) -> Result<()> {
    let bash = subject.start(["bash", "-c", "exit 7"]).run()?;
    if bash.status.code() != Some(7) {
        return Err(skip("there is no bash in the container"));
    }
    Ok(())
}

/// The step as the leader of the session, as under a terminal emulator.
fn session(subject: &Subject, shell: &str) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let before = terminal.settings()?;
    let running = terminal.of(subject.start([shell])).spawn()?;
    let result = job_control(&mut terminal);
    let shown = terminal.all()?.to_owned();
    result.with_context(|| format!("the terminal shows {shown:?}"))?;
    terminal.types("exit 7\n")?;
    running.wait()?.expect_status(7)?;
    settings_are(&terminal, &before)
}

/// The step as a job of an interactive shell, as in everyday life.
fn job_control_below_a_shell(subject: &Subject) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let shell = terminal.of(subject.beside("/bin/sh", ["-i"])).spawn()?;
    terminal.types(SET_PROMPT)?;
    terminal.shows(PROMPT)?;
    let before = terminal.settings()?;
    for _ in 0..2 {
        let program = subject.sandbox.program.display();
        terminal.types(&format!("{program} run /bin/sh\n"))?;
        // Its banners come from both halves: then the shell inside reads.
        terminal.shows("running [\"/bin/sh\"]")?;
        terminal.shows("running [\"/bin/sh\"]")?;
        let result = job_control(&mut terminal);
        let shown = terminal.all()?.to_owned();
        result.with_context(|| format!("the terminal shows {shown:?}"))?;
        terminal.types("exit 7\n")?;
        terminal.shows(PROMPT)?;
        terminal.types("echo status=$?\n")?;
        terminal.shows("status=7\r\n")?;
        terminal.shows(PROMPT)?;
        settings_are(&terminal, &before)?;
    }
    // The terminal is the outer shell's again.
    ctrl_c_ends_a_sleep(&mut terminal, "41")?;
    terminal.types("exit 5\n")?;
    shell.wait()?.expect_status(5)?;
    Ok(())
}

/// Prompt, Ctrl-C, Ctrl-Z, fg in a shell that has just started.
pub(super) fn job_control(terminal: &mut Terminal) -> Result<()> {
    terminal.types(SET_PROMPT)?;
    terminal.shows(PROMPT)?;
    ctrl_c_ends_a_sleep(terminal, "42")?;

    terminal.types("sleep 43\n")?;
    let sleep = foreground_sleep("43")?;
    terminal.types(CTRL_Z)?;
    terminal.shows(PROMPT)?;
    ensure!(
        settles(|| sleep.state() == Some('T')),
        "Ctrl-Z did not stop the command"
    );
    terminal.types("fg\n")?;
    ensure!(
        settles(|| sleep.state() == Some('S') && sleep.is_in_foreground()),
        "fg did not continue the command"
    );
    terminal.types(CTRL_C)?;
    terminal.shows(PROMPT)?;
    ensure!(settles(|| !sleep.is_alive()), "Ctrl-C after fg did nothing");

    let shown = terminal.all()?;
    for complaint in ["can't access tty", "no job control", "Cannot set tty"] {
        ensure!(!shown.contains(complaint), "the shell says {complaint:?}");
    }
    Ok(())
}

fn ctrl_c_ends_a_sleep(terminal: &mut Terminal, seconds: &str) -> Result<()> {
    terminal.types(&format!("sleep {seconds}\n"))?;
    let sleep = foreground_sleep(seconds)?;
    terminal.types(CTRL_C)?;
    terminal.shows(PROMPT)?;
    terminal.types("echo status=$?\n")?;
    terminal.shows("status=130\r\n")?;
    terminal.shows(PROMPT)?;
    ensure!(settles(|| !sleep.is_alive()), "Ctrl-C did not end the command");
    Ok(())
}

pub(super) fn foreground_sleep(seconds: &str) -> Result<Process> {
    let sleep = process::find("sleep", |args| {
        args == [OsStr::new("sleep"), OsStr::new(seconds)]
    })?;
    ensure!(
        settles(|| sleep.is_in_foreground()),
        "the command is not in the foreground"
    );
    Ok(sleep)
}

pub(super) fn settings_are(
    terminal: &Terminal,
    before: &nix::sys::termios::Termios,
) -> Result<()> {
    ensure!(
        settles(|| terminal.settings().is_ok_and(|now| now == *before)),
        "the terminal's settings changed: {:?}, before {before:?}",
        terminal.settings()?
    );
    Ok(())
}

fn ctrl_c_arrives_once(subject: &Subject) -> Result<()> {
    arrives_once(subject, CTRL_C, "INT")
}

/// A key that makes a signal. What was passed on in vain comes a moment later,
/// sometimes too soon to be told from the first: so more than one is typed.
pub(super) fn arrives_once(
    subject: &Subject,
    key: &str,
    signal: &str,
) -> Result<()> {
    const TIMES: usize = 10;
    let mut terminal = Terminal::new(subject)?;
    // A shell that waits for a command would take two for one.
    let script = format!(
        "trap 'echo inter''rupted' {signal}; \
         trap 'echo la''st; exit 9' TERM; \
         echo rea''dy; while :; do :; done"
    );
    let running = terminal.of(subject.sh(&script)).spawn()?;
    terminal.shows("ready\r\n")?;
    for _ in 0..TIMES {
        terminal.types(key)?;
        terminal.shows("interrupted")?;
    }
    running.signal(Signal::SIGTERM)?;
    terminal.shows("last")?;
    running.wait()?.expect_status(9)?;
    let times = terminal.all()?.matches("interrupted").count();
    ensure!(times == TIMES, "{TIMES} keys were typed, {times} arrived");
    Ok(())
}

/// There would be nobody to continue it: nothing can stop PID 1, and so the
/// launcher's caller is not told.
fn ctrl_z_stops_no_container(subject: &Subject) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let running = terminal.of(subject.start(["sleep", "44"])).spawn()?;
    let sleep = foreground_sleep("44")?;
    terminal.types(CTRL_Z)?;
    thread::sleep(Duration::from_millis(100));
    ensure!(settles(|| sleep.state() == Some('S')), "Ctrl-Z stopped it");
    terminal.types(CTRL_C)?;
    running.wait()?.expect_status(130)?;
    Ok(())
}

fn ctrl_d_ends_the_shell(subject: &Subject) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let running = terminal.of(subject.start(["/bin/sh"])).spawn()?;
    terminal.types(SET_PROMPT)?;
    terminal.shows(PROMPT)?;
    terminal.types(CTRL_D)?;
    running.wait()?.expect_status(0)?;
    Ok(())
}
