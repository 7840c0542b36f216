//! The suite of step03.

use std::process::ExitCode;

use anyhow::Result;
use suite::harness::Test;
use suite::transcript::{CTRL_C, Transcript};
use suite::{Step, Subject, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 3,
            name: "step03-pid",
            program: env!("CARGO_BIN_EXE_step03-pid"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    own_pids,
    one_process_two_numbers,
    the_host_is_out_of_reach,
    orphans_go_to_pid_1,
    signals_to_pid_1,
    ctrl_c_ends_the_command,
    ps_sees_the_host,
    files_are_the_hosts;
as user:
    what_the_kernel_saw,
];

fn own_pids(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step03-pid run sh -c 'echo $$'")?
        .matches("03-pid");
    Ok(())
}

fn one_process_two_numbers(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step03-pid run grep NSpid /proc/self/status")?
        .matches("03-two-numbers");
    Ok(())
}

fn the_host_is_out_of_reach(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "sleep 2 & export PID=$!; step03-pid run sh -c 'kill $PID'; \
             wait $PID; echo $?",
        )?
        .matches("03-kill");
    Ok(())
}

fn orphans_go_to_pid_1(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step03-pid run sh -c \
             '(sleep 60 &); sleep 1; ps -e -o pid,ppid,args; :'",
        )?
        .matches("03-orphan");
    Ok(())
}

fn signals_to_pid_1(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step03-pid run sh -c 'kill -TERM 1; sleep 1; echo alive'; echo $?",
        )?
        .type_line(
            "step03-pid run sh -c 'kill -KILL 1; sleep 1; echo alive'; echo $?",
        )?
        .matches("03-signals");
    Ok(())
}

fn ctrl_c_ends_the_command(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line_and_key(
            "step03-pid run sleep 60; echo $?",
            &["sleep", "60"],
            CTRL_C,
        )?
        .matches("03-ctrl-c");
    Ok(())
}

fn what_the_kernel_saw(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "strace -f -qq -e trace=unshare,prctl,waitid -e signal=none \
             step03-pid run sh -c '(sleep 0.1 &); sleep 1'",
        )?
        .matches("03-strace");
    Ok(())
}

fn ps_sees_the_host(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step03-pid run ps -e -o pid,ppid,args")?
        .matches("03-ps");
    Ok(())
}

fn files_are_the_hosts(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step03-pid run cat secret")?
        .type_line("PASSWORD=hunter2 step03-pid run sh -c 'echo $PASSWORD'")?
        .matches("03-files");
    Ok(())
}
