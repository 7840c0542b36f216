//! What a terminal goes through beside job control: programs that change its
//! settings and are killed, windows that change their size or are closed.
//! Every step; takes long.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, Termios};

use super::job_control::{
    CTRL_C, CTRL_D, CTRL_Z, PROMPT, SET_PROMPT, arrives_once, foreground_sleep,
    has_bash, job_control, settings_are,
};
use crate::harness::{Test, skip};
use crate::process::{self, Process, SOON, settles};
use crate::program::{Running, Start, Subject};
use crate::terminal::Terminal;
use crate::tests;

/// For every step.
pub const TESTS: &[Test] = tests![needs container:
    settings_come_back_whoever_ends_it,
    settings_come_back_when_the_shell_is_killed,
    settings_last_as_long_as_the_container,
    nobody_is_left_to_undo_what_a_killed_launcher_allowed,
    what_is_typed_ahead_is_read_afterwards,
    a_stopped_terminal_delays_no_end,
    in_a_pipeline_the_settings_belong_to_others,
    in_the_background_the_settings_belong_to_others,
    the_command_hears_of_a_new_size,
    bash_hears_of_a_new_size,
    the_quit_key_arrives_once,
    ctrl_d_ends_bash_with_the_last_status,
    a_closed_terminal_ends_a_command,
    a_closed_terminal_ends_sh,
    a_closed_terminal_ends_bash,
    a_closed_terminal_ends_a_job,
    two_containers_are_two_jobs,
    a_reader_in_the_background_waits_for_fg,
    writers_in_the_background_may_be_forbidden,
];

/// From step03 on, where nothing stops PID 1.
pub const FROM_PID_1: &[Test] = tests![needs container:
    a_command_that_stops_itself_goes_on,
    bash_cannot_be_suspended,
];

/// For step07.
pub const LIMITED: &[Test] = tests![needs container:
    settings_come_back_when_memory_is_short,
];

const CTRL_BACKSLASH: &str = "\x1c";
const CTRL_S: &str = "\x13";

/// As an editor has it: it shows nothing by itself, and gives every key.
const RAW: &str = "stty raw -echo; echo rea''dy; ";

/// The command, whose arguments these are.
fn command(args: &[&str]) -> Result<Process> {
    process::find(args[0], |found| found == args)
}

/// `PROGRAM run sh -c 'stty …; exec sleep N'` in a terminal of its own.
fn raw_sleep(
    subject: &Subject,
    settings: &str,
    seconds: &str,
) -> Result<(Terminal, Termios, Running, Process)> {
    let mut terminal = Terminal::new(subject)?;
    let before = terminal.settings()?;
    let script = format!("{settings} exec sleep {seconds}");
    let running = terminal.of(subject.sh(&script)).spawn()?;
    terminal.shows("ready")?;
    let sleep = command(&["sleep", seconds])?;
    ensure!(terminal.settings()? != before, "{settings:?} changes nothing");
    Ok((terminal, before, running, sleep))
}

fn settings_come_back_whoever_ends_it(subject: &Subject) -> Result<()> {
    let (terminal, before, running, _) = raw_sleep(subject, RAW, "51")?;
    running.signal(Signal::SIGTERM)?;
    running.wait()?.expect_status(143)?;
    settings_are(&terminal, &before)?;

    let (terminal, before, running, sleep) = raw_sleep(subject, RAW, "52")?;
    sleep.signal(Signal::SIGKILL)?;
    running.wait()?.expect_status(137)?;
    settings_are(&terminal, &before)?;

    // Of steps 1 and 2 this is the launcher.
    if subject.step >= 3 {
        let (terminal, before, running, sleep) = raw_sleep(subject, RAW, "53")?;
        let pid_1 = sleep.parent().context("no PID 1")?;
        pid_1.signal(Signal::SIGKILL)?;
        running.wait()?.expect_status(137)?;
        settings_are(&terminal, &before)?;
    }

    let silent = "ulimit -c 0; stty -icanon -echo; echo rea''dy; ";
    let (mut terminal, before, running, _) = raw_sleep(subject, silent, "54")?;
    terminal.types(CTRL_BACKSLASH)?;
    running.wait()?.expect_status(131)?;
    settings_are(&terminal, &before)
}

/// bash has taken the terminal for a group of its own, and dies with it: then
/// the script that called the launcher could not read.
fn settings_come_back_when_the_shell_is_killed(
    subject: &Subject,
) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let before = terminal.settings()?;
    let script = "\"$0\" run bash --norc; echo st''atus=$?; \
                  read -r line; echo \"read $line\"; exit 5";
    let program = subject.sandbox.program.to_string_lossy();
    has_bash(subject)?;
    let start = subject.beside("/bin/sh", ["-c", script, &program]);
    let running = terminal.of(start).spawn()?;
    terminal.types(SET_PROMPT)?;
    terminal.shows(PROMPT)?;
    let bash = command(&["bash", "--norc"])?;
    ensure!(
        settles(|| terminal.settings().is_ok_and(|now| now != before)),
        "bash edits no line"
    );
    bash.signal(Signal::SIGKILL)?;
    terminal.shows("status=137\r\n")?;
    settings_are(&terminal, &before)?;
    terminal.types("on it goes\n")?;
    terminal.shows("read on it goes\r\n")?;
    running.wait()?.expect_status(5)?;
    Ok(())
}

fn settings_last_as_long_as_the_container(subject: &Subject) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let before = terminal.settings()?;
    let script = "stty -echo; echo rea''dy; read -r line; exit 3";
    let running = terminal.of(subject.sh(script)).spawn()?;
    terminal.shows("ready")?;
    let now = terminal.settings()?;
    ensure!(!now.local_flags.contains(LocalFlags::ECHO), "stty did nothing");
    terminal.types("secret\n")?;
    running.wait()?.expect_status(3)?;
    settings_are(&terminal, &before)
}

/// What the book says. Its shell may know what to do, as bash does.
fn nobody_is_left_to_undo_what_a_killed_launcher_allowed(
    subject: &Subject,
) -> Result<()> {
    let (terminal, before, running, sleep) = raw_sleep(subject, RAW, "55")?;
    running.signal(Signal::SIGKILL)?;
    ensure!(running.wait()?.ended() == "signal 9", "it was not killed");
    if subject.step < 3 {
        sleep.signal(Signal::SIGKILL)?;
    }
    ensure!(settles(|| !sleep.is_alive()), "the command lives on");
    ensure!(terminal.settings()? != before, "somebody did it");
    // In step 7 the next one removes the group.
    subject.start(["true"]).run()?.expect_status(0)?;
    Ok(())
}

fn what_is_typed_ahead_is_read_afterwards(subject: &Subject) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let script = "\"$0\" run sh -c 'stty raw -echo; echo rea\"\"dy; \
                  exec sleep 56'; read -r line; echo \"read $line\"";
    let program = subject.sandbox.program.to_string_lossy();
    let start = subject.beside("/bin/sh", ["-c", script, &program]);
    let running = terminal.of(start).spawn()?;
    terminal.shows("ready")?;
    let sleep = command(&["sleep", "56"])?;
    terminal.types("ahead\n")?;
    sleep.signal(Signal::SIGKILL)?;
    terminal.shows("read ahead\r\n")?;
    running.wait()?.expect_status(0)?;
    Ok(())
}

/// Nobody waits for a Ctrl-Q.
fn a_stopped_terminal_delays_no_end(subject: &Subject) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let before = terminal.settings()?;
    let script = "stty -echo; while :; do echo mo''re; done";
    let running = terminal.of(subject.sh(script)).spawn()?;
    terminal.shows("more")?;
    terminal.types(CTRL_S)?;
    terminal.falls_silent()?;
    running.signal(Signal::SIGTERM)?;
    running.wait()?.expect_status(143)?;
    settings_are(&terminal, &before)
}

fn in_a_pipeline_the_settings_belong_to_others(
    subject: &Subject,
) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let script = "\"$0\" run sleep 58 | { stty -echo -icanon </dev/tty; \
                  cat; echo en''ded; exec sleep 59; }";
    let program = subject.sandbox.program.to_string_lossy();
    let start = subject.beside("/bin/sh", ["-c", script, &program]);
    let running = terminal.of(start).spawn()?;
    let sleep = command(&["sleep", "58"])?;
    ensure!(
        settles(|| terminal.settings().is_ok_and(|now| {
            !now.local_flags.contains(LocalFlags::ICANON)
        })),
        "stty did nothing"
    );
    let theirs = terminal.settings()?;
    sleep.signal(Signal::SIGTERM)?;
    terminal.shows("ended")?;
    ensure!(terminal.settings()? == theirs, "the launcher changed them");
    command(&["sleep", "59"])?.signal(Signal::SIGTERM)?;
    running.wait()?.expect_status(143)?;
    Ok(())
}

/// Started in the foreground, and then put behind: for a shell does that
/// when the launcher is stopped.
fn in_the_background_the_settings_belong_to_others(
    subject: &Subject,
) -> Result<()> {
    let (mut terminal, shell) = host_shell(subject)?;
    let program = subject.sandbox.program.display();
    terminal.types(&format!("{program} run sleep 60\n"))?;
    let sleep = foreground_sleep("60")?;
    let launcher = process::find("launcher", |args| {
        args.len() == 4 && args[1] == "run" && args[2] == "sleep"
    })?;
    launcher.signal(Signal::SIGSTOP)?;
    terminal.shows(PROMPT)?;
    terminal.types("bg\n")?;
    terminal.shows(PROMPT)?;
    terminal.types("sh -c 'stty -echo -icanon; exec sleep 61'\n")?;
    let other = foreground_sleep("61")?;
    let theirs = terminal.settings()?;
    sleep.signal(Signal::SIGKILL)?;
    ensure!(settles(|| !launcher.is_alive()), "the launcher stays");
    ensure!(terminal.settings()? == theirs, "the launcher changed them");
    ensure!(other.is_in_foreground(), "the launcher took the terminal");
    other.signal(Signal::SIGTERM)?;
    terminal.shows(PROMPT)?;
    terminal.types("stty sane\nexit 5\n")?;
    terminal.stays_until(shell)?.expect_status(5)?;
    Ok(())
}

/// An interactive bash of the host's: it has jobs, and says what becomes of
/// them.
fn host_shell(subject: &Subject) -> Result<(Terminal, Running)> {
    if !std::path::Path::new("/bin/bash").exists() {
        return Err(skip("there is no bash"));
    }
    let mut terminal = Terminal::new(subject)?;
    let args = ["--norc", "--noprofile", "-i"];
    let start = subject.beside("/bin/bash", args);
    let shell = terminal.of(start).spawn()?;
    terminal.types(SET_PROMPT)?;
    terminal.shows(PROMPT)?;
    Ok((terminal, shell))
}

fn the_command_hears_of_a_new_size(subject: &Subject) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let script = "trap 'stty size; exit 4' WINCH; stty size; echo rea''dy; \
                  while :; do sleep 0.05; done";
    let running = terminal.of(subject.sh(script)).spawn()?;
    ensure!(terminal.shows("ready")?.contains("24 80"), "another size");
    terminal.resize(31, 101)?;
    terminal.shows("31 101")?;
    running.wait()?.expect_status(4)?;
    Ok(())
}

fn bash_hears_of_a_new_size(subject: &Subject) -> Result<()> {
    has_bash(subject)?;
    let mut terminal = Terminal::new(subject)?;
    let running = terminal.of(subject.start(["bash", "--norc"])).spawn()?;
    terminal.types(SET_PROMPT)?;
    terminal.shows(PROMPT)?;
    for (rows, columns) in [(31, 101), (12, 40)] {
        terminal.resize(rows, columns)?;
        let wanted = format!("size {rows} {columns}\r\n");
        ensure!(
            settles(|| {
                let _ = terminal.types("echo size $LINES $COLUMNS\n");
                let shown = terminal.shows(PROMPT);
                shown.is_ok_and(|shown| shown.contains(&wanted))
            }),
            "bash does not know of {rows} rows and {columns} columns"
        );
    }
    terminal.types("exit 7\n")?;
    terminal.stays_until(running)?.expect_status(7)?;
    Ok(())
}

fn the_quit_key_arrives_once(subject: &Subject) -> Result<()> {
    arrives_once(subject, CTRL_BACKSLASH, "QUIT")
}

fn ctrl_d_ends_bash_with_the_last_status(subject: &Subject) -> Result<()> {
    has_bash(subject)?;
    let mut terminal = Terminal::new(subject)?;
    let before = terminal.settings()?;
    let running = terminal.of(subject.start(["bash", "--norc"])).spawn()?;
    terminal.types(SET_PROMPT)?;
    terminal.shows(PROMPT)?;
    terminal.types("(exit 6)\n")?;
    terminal.shows(PROMPT)?;
    terminal.types(CTRL_D)?;
    terminal.stays_until(running)?.expect_status(6)?;
    settings_are(&terminal, &before)
}

/// The window is closed: all have to end, and the guard sees who did not.
fn hangs_up(terminal: Terminal, running: Running) -> Result<()> {
    terminal.hang_up();
    running.wait()?.expect_no_panic()?;
    ensure!(
        settles(|| process::left_behind().is_empty()),
        "{:?} lives on",
        process::left_behind().first().map(|left| left.describe())
    );
    Ok(())
}

fn a_closed_terminal_ends_a_command(subject: &Subject) -> Result<()> {
    let (terminal, _, running, _) = raw_sleep(subject, RAW, "62")?;
    hangs_up(terminal, running)
}

fn a_closed_terminal_ends_sh(subject: &Subject) -> Result<()> {
    closed_over(subject, subject.start(["/bin/sh"]))
}

fn a_closed_terminal_ends_bash(subject: &Subject) -> Result<()> {
    has_bash(subject)?;
    closed_over(subject, subject.start(["bash", "--norc"]))
}

fn closed_over(subject: &Subject, shell: Start) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let running = terminal.of(shell).spawn()?;
    terminal.types(SET_PROMPT)?;
    terminal.shows(PROMPT)?;
    terminal.types("sleep 63\n")?;
    foreground_sleep("63")?;
    hangs_up(terminal, running)
}

fn a_closed_terminal_ends_a_job(subject: &Subject) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let shell = terminal.of(subject.beside("/bin/sh", ["-i"])).spawn()?;
    terminal.types(SET_PROMPT)?;
    terminal.shows(PROMPT)?;
    let program = subject.sandbox.program.display();
    terminal.types(&format!("{program} run sleep 64\n"))?;
    foreground_sleep("64")?;
    hangs_up(terminal, shell)
}

fn two_containers_are_two_jobs(subject: &Subject) -> Result<()> {
    let (mut terminal, shell) = host_shell(subject)?;
    let program = subject.sandbox.program.display();
    terminal.types(&format!("{program} run sleep 65 &\n"))?;
    let sleep = command(&["sleep", "65"])?;
    terminal.shows(PROMPT)?;
    terminal.types("jobs\n")?;
    terminal.shows("Running")?;
    terminal.shows(PROMPT)?;

    terminal.types(&format!("{program} run /bin/sh\n"))?;
    terminal.shows("running [\"/bin/sh\"]")?;
    terminal.shows("running [\"/bin/sh\"]")?;
    job_control(&mut terminal)?;
    ensure!(sleep.state() == Some('S'), "the other container is stopped");
    terminal.types("exit 7\n")?;
    terminal.shows(PROMPT)?;
    terminal.types("echo status=$?\n")?;
    terminal.shows("status=7\r\n")?;

    terminal.types("fg\n")?;
    ensure!(settles(|| sleep.is_in_foreground()), "fg does nothing");
    terminal.types(CTRL_C)?;
    terminal.shows(PROMPT)?;
    terminal.types("echo status=$?\n")?;
    terminal.shows("status=130\r\n")?;
    terminal.types("exit 5\n")?;
    terminal.stays_until(shell)?.expect_status(5)?;
    Ok(())
}

/// Together with its launcher, so that the shell hears of it.
fn a_reader_in_the_background_waits_for_fg(subject: &Subject) -> Result<()> {
    let (mut terminal, shell) = host_shell(subject)?;
    let program = subject.sandbox.program.display();
    terminal.types(&format!("{program} run cat &\n"))?;
    let cat = command(&["cat"])?;
    ensure!(settles(|| cat.state() == Some('T')), "cat is not stopped");
    // The shell hears of the launcher, which may stop a moment later.
    process::wait_for("stopped job", SOON, || {
        terminal.types("jobs\n")?;
        let shown = terminal.shows(PROMPT)?;
        Ok(shown.contains("Stopped").then_some(()))
    })?;
    for word in ["hello", "again"] {
        terminal.types("fg\n")?;
        ensure!(
            settles(|| cat.state() == Some('S') && cat.is_in_foreground()),
            "fg does not continue it"
        );
        terminal.types(&format!("{word}\n"))?;
        // Once the terminal shows it, and once cat.
        terminal.shows(&format!("{word}\r\n{word}\r\n"))?;
        terminal.types(CTRL_Z)?;
        terminal.shows("Stopped")?;
        ensure!(settles(|| cat.state() == Some('T')), "cat goes on");
    }
    terminal.types("fg\n")?;
    ensure!(settles(|| cat.state() == Some('S')), "fg does nothing");
    terminal.types(CTRL_D)?;
    terminal.shows(PROMPT)?;
    terminal.types("echo status=$?\n")?;
    terminal.shows("status=0\r\n")?;
    terminal.types("exit 5\n")?;
    terminal.stays_until(shell)?.expect_status(5)?;
    Ok(())
}

/// With `stty tostop` the kernel stops those in the background that write. No
/// half of ours is there when it has something to say.
fn writers_in_the_background_may_be_forbidden(subject: &Subject) -> Result<()> {
    let (mut terminal, shell) = host_shell(subject)?;
    let program = subject.sandbox.program.display();
    terminal.types("stty tostop\n")?;
    for (command, status) in [("no-such-command", 127), ("sh -c 'exit 3'", 3)] {
        terminal.types(&format!("{program} run {command}\n"))?;
        terminal.shows("running [")?;
        terminal.shows("running [")?;
        terminal.shows(PROMPT)?;
        terminal.types("echo status=$?\n")?;
        terminal.shows(&format!("status={status}\r\n"))?;
    }
    if subject.step == 7 {
        let probe = format!("/{}", crate::sandbox::PROBE);
        let part = crate::probe::PART;
        let line = format!("{program} -m 50m run {probe} {part} memory 100\n");
        terminal.types(&line)?;
        terminal.shows("out of memory")?;
        terminal.types("\necho status=$?\n")?;
        terminal.shows("status=137\r\n")?;
    }
    terminal.types("exit 5\n")?;
    terminal.stays_until(shell)?.expect_status(5)?;
    Ok(())
}

/// As vi at a Ctrl-Z: nobody outside would hear of it. What somebody else has
/// stopped stays stopped.
fn a_command_that_stops_itself_goes_on(subject: &Subject) -> Result<()> {
    // Other shells want a /dev/null to start something in the background.
    has_bash(subject)?;
    for signal in ["STOP", "TSTP"] {
        let mut terminal = Terminal::new(subject)?;
        let script = format!(
            "setsid sleep 66 & read -r line; kill -STOP $!; kill -{signal} $$; \
             echo rea''dy; read -r line; exit 4"
        );
        let start = subject.start(["bash", "-c", &script]);
        let running = terminal.of(start).spawn()?;
        // In a session of its own by now, and perhaps still a `setsid`.
        let other = process::wait_for("other session", SOON, || {
            let mut left = process::left_behind().into_iter();
            Ok(left.find(|it| {
                it.args().last().is_some_and(|arg| arg == "66")
                    && !it.is_in_foreground()
            }))
        })?;
        terminal.types("\n")?;
        terminal.shows("ready")?;
        ensure!(
            settles(|| other.state() == Some('T')),
            "another was continued, too"
        );
        terminal.types("\n")?;
        running.wait()?.expect_status(4)?;
    }
    Ok(())
}

fn bash_cannot_be_suspended(subject: &Subject) -> Result<()> {
    has_bash(subject)?;
    let mut terminal = Terminal::new(subject)?;
    let running = terminal.of(subject.start(["bash", "--norc"])).spawn()?;
    terminal.types(SET_PROMPT)?;
    terminal.shows(PROMPT)?;
    terminal.types("suspend\n")?;
    terminal.shows(PROMPT)?;
    job_control(&mut terminal)?;
    terminal.types("exit 7\n")?;
    terminal.stays_until(running)?.expect_status(7)?;
    Ok(())
}

fn settings_come_back_when_memory_is_short(subject: &Subject) -> Result<()> {
    let mut terminal = Terminal::new(subject)?;
    let before = terminal.settings()?;
    let script = format!(
        "{RAW} exec /{} {} memory 100",
        crate::sandbox::PROBE,
        crate::probe::PART
    );
    let start = subject.sh(&script).options(["-m", "50m"]);
    let running = terminal.of(start).spawn()?;
    terminal.shows("out of memory")?;
    running.wait()?.expect_status(137)?;
    // Said on a terminal that begins a new line by itself again.
    ensure!(terminal.all()?.ends_with("\r\n"), "still raw when it is said");
    settings_are(&terminal, &before)
}
