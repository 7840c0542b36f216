//! What step07 does with a line less.

use anyhow::Result;
use suite::Subject;
use suite::harness::Test;
use suite::transcript::Transcript;

/// The patches of this folder that begin with 07.
pub const PATCHES: &[Test] = &[
    Test::of_patch("07-nobody-joins", nobody_joins),
    Test::of_patch("07-exit", exit).leaves(&["cgroup"]),
    Test::of_patch("07-tree", tree),
    Test::of_patch("07-answer-refused", refused),
];

fn nobody_joins(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step07-cgroups run --pids-limit 4 sh -c \
             'for n in 3 4 5 6 7; do sleep 9 & echo $n; done'",
        )?
        .type_line(
            "step07-cgroups run dd if=/dev/zero of=/dev/null bs=60M \
             count=1 status=none; echo $?",
        )?
        .matches("07-break-nobody-joins");
    Ok(())
}

fn exit(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step07-cgroups run true; echo $?")?
        .type_line(
            "find /sys/fs/cgroup -name 'step07-*' | \
             sed 's/.*\\///' | sort -u",
        )?
        .matches("07-break-exit");
    Ok(())
}

fn tree(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line(
            "step07-cgroups run sh -c \
             'grep -o \"step07-[0-9]*\" /proc/self/cgroup | sort -u'",
        )?
        .matches("07-break-tree");
    Ok(())
}

fn refused(subject: &Subject) -> Result<()> {
    let two_sleep = |limit| {
        format!(
            "step07-cgroups run --pids-limit {limit} sh -c \
             'sleep 1 & sleep 1 & wait'"
        )
    };
    Transcript::new(subject)
        .type_line(&two_sleep(4))?
        .type_line(&two_sleep(3))?
        .matches("07-answer-refused");
    Ok(())
}
