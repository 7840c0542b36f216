//! What step03 does with a line less, and with the exercise done.

use anyhow::Result;
use suite::Subject;
use suite::harness::Test;
use suite::transcript::{CTRL_C, Transcript};

/// The patches of this folder that begin with 03.
pub const PATCHES: &[Test] = &[
    Test::of_patch("03-no-reaping", no_reaping),
    Test::of_patch("03-command-is-pid-1", command_is_pid_1),
    Test::of_patch("03-no-death-signal", no_death_signal),
    Test::of_patch("03-goodbye", goodbye),
];

fn no_reaping(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step03-pid run sh -c \
             '(sleep 0 &); sleep 1; ps -e -o pid,ppid,args; :'",
        )?
        .matches("03-break-no-reaping");
    Ok(())
}

fn command_is_pid_1(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step03-pid run sh -c 'kill -TERM $$; echo alive'; echo $?")?
        .type_line(
            "step03-pid run sh -c \
             'trap \"exit 9\" TERM; kill -TERM $$; echo alive'; echo $?",
        )?
        .type_line_and_key(
            "step03-pid run sleep 3; echo $?",
            &["sleep", "3"],
            CTRL_C,
        )?
        .matches("03-break-command-is-pid-1");
    Ok(())
}

/// What survives ends when its terminal goes.
fn no_death_signal(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step03-pid run sleep 60 & sleep 1; kill -KILL $!; sleep 1; \
             ps -e -o pid,ppid,args",
        )?
        .matches("03-break-no-death-signal");
    Ok(())
}

fn goodbye(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step03-pid run sh -c \
             '(trap \"echo bye; exit\" TERM; sleep 60 & wait) & \
             sleep 1'; echo $?",
        )?
        .matches("03-answer-goodbye");
    Ok(())
}
