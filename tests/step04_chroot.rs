//! The suite of step04.

use std::process::ExitCode;

use anyhow::Result;
use suite::harness::Test;
use suite::transcript::Transcript;
use suite::{Step, Subject, tests};

fn main() -> ExitCode {
    suite::main(
        Step {
            number: 4,
            name: "step04-chroot",
            program: env!("CARGO_BIN_EXE_step04-chroot"),
        },
        TRANSCRIPTS,
    )
}

const TRANSCRIPTS: &[Test] = tests![needs container:
    ls_sees_the_new_root,
    ps_fails,
    errors,
    scripts_that_do_not_start,
];

fn ls_sees_the_new_root(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step04-chroot run ls /")?
        .matches("04-ls");
    Ok(())
}

fn ps_fails(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step04-chroot run ls /proc")?
        .type_line("step04-chroot run ps")?
        .matches("04-ps");
    Ok(())
}

fn errors(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("step04-chroot --rootfs nowhere run sh; echo $?")?
        .type_line("step04-chroot run no-such-command; echo $?")?
        .matches("04-errors");
    Ok(())
}

/// One after the other, as each is mended.
fn scripts_that_do_not_start(subject: &Subject) -> Result<()> {
    Transcript::new(subject)
        .type_line("printf '#!/bin/tcsh\\necho hello\\n' > fs/hello")?
        .type_line("step04-chroot run /hello; echo $?")?
        .type_line("chmod +x fs/hello; step04-chroot run /hello; echo $?")?
        .type_line("sed -i 1d fs/hello; step04-chroot run /hello; echo $?")?
        .type_line("sed -i '1i #!/bin/sh' fs/hello; step04-chroot run /hello")?
        .type_line("rm fs/hello")?
        .matches("04-fails-script");
    Ok(())
}
