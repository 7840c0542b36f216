//! The suite of step07.

use std::process::ExitCode;

use anyhow::Result;
use suite::cgroup::hierarchies;
use suite::harness::{Test, skip};
use suite::transcript::Transcript;
use suite::{Step, Subject, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 7,
            name: "step07-cgroups",
            program: env!("CARGO_BIN_EXE_step07-cgroups"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    a_session,
    the_eleventh_process,
    out_of_memory,
    half_a_processor,
    the_root_of_the_tree,
    a_group_of_a_killed_launcher,
    a_trace,
];

fn a_session(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("hostname")?
        .type_line(
            "step07-cgroups --hostname box run \
             sh -c 'hostname; ls /; ps -o pid,comm; :'",
        )?
        .type_line("step07-cgroups run tail /dev/zero; echo $?")?
        .matches("07-session");
    Ok(())
}

fn the_eleventh_process(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step07-cgroups run sh -c \
             'for n in 3 4 5 6 7 8 9 10 11; do sleep 9 & echo $n; done'",
        )?
        .matches("07-processes");
    Ok(())
}

/// PID 1 and the libraries need some of the 50 MiB, too.
fn out_of_memory(subject: &Subject) -> Result<()> {
    let take = |size| {
        format!(
            "step07-cgroups run dd if=/dev/zero of=/dev/null bs={size} \
             count=1 status=none; echo $?"
        )
    };
    Transcript::new(subject)
        .type_line(&take("40M"))?
        .type_line(&take("60M"))?
        .matches("07-memory");
    Ok(())
}

/// The loop may have a second of processor time. Where it gets half of one
/// processor, it cannot have had it after a second by the clock.
fn half_a_processor(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step07-cgroups run sh -c \
             'ulimit -t 1; while :; do :; done'; echo $?",
        )?
        .type_line(
            "step07-cgroups run --cpus 0.5 sh -c \
             '(ulimit -t 1; while :; do :; done) & \
             sleep 1; kill -0 $! && echo not yet'",
        )?
        .matches("07-processor");
    Ok(())
}

fn the_root_of_the_tree(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step07-cgroups run sh -c \
             'cut -d: -f3 /proc/self/cgroup | sort -u'",
        )?
        .matches("07-tree");
    Ok(())
}

fn a_group_of_a_killed_launcher(subject: &Subject) -> Result<()> {
    let groups = "find /sys/fs/cgroup -name 'step07-*' | \
                  sed 's/.*\\///' | sort -u";
    Transcript::new(subject)
        .type_line(
            "step07-cgroups run sleep 9 & \
             until ps | grep -q sleep; do :; done; kill -9 $!",
        )?
        .type_line(groups)?
        .type_line("step07-cgroups run true")?
        .type_line(groups)?
        .matches("07-killed");
    Ok(())
}

/// One for each version: what has another name is what the reader shall see.
fn a_trace(subject: &Subject) -> Result<()> {
    let found = hierarchies()?;
    let find = |name| found.iter().find(|it| it.controllers.contains(&name));
    let (Some(pids), Some(memory)) = (find("pids"), find("memory")) else {
        return Err(skip("no group has pids and memory"));
    };
    let (name, swap) = match (pids.is_v2, memory.is_v2) {
        (true, true) => ("07-trace-v2", "memory.swap.max"),
        (false, false) if pids.own != memory.own => {
            ("07-trace-v1", "memory.memsw.limit_in_bytes")
        }
        _ => return Err(skip("pids and memory are on trees of two kinds")),
    };
    let given = subject.groups.of(subject.caller);
    let mut groups = given.iter().chain([&memory.own]);
    if !groups.any(|group| group.join(swap).exists()) {
        return Err(skip("this kernel does not count swap"));
    }
    Transcript::new(subject)
        .type_line(
            "strace -f -qq -y -e signal=none \
             -e trace=mkdir,write,unshare,rmdir \
             step07-cgroups run true 2>&1 | grep -i cgroup",
        )?
        .matches(name);
    Ok(())
}
