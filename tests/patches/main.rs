//! "Break it": steps with a patch applied, and what happens then, as
//! transcripts. Each `NN-NAME.patch` here is applied to a copy of step NN,
//! which is built and run; the programs themselves are not touched.
//!
//! It builds every step several times, so a plain `cargo test` leaves it out:
//!
//! ```sh
//! cargo test -p suite --features patches --test patches
//! ```

mod build;
mod step01;
mod step02;
mod step03;
mod step04;
mod step05;
mod step06;
mod step07;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use suite::harness::{Session, Test, World, fail};
use suite::{Caller, Step};

/// The steps, each with the tests of its patches.
const STEPS: [(Step, &[Test]); 7] = [
    (step(1, "step01-exec"), step01::PATCHES),
    (step(2, "step02-uts"), step02::PATCHES),
    (step(3, "step03-pid"), step03::PATCHES),
    (step(4, "step04-chroot"), step04::PATCHES),
    (step(5, "step05-proc"), step05::PATCHES),
    (step(6, "step06-pivot-root"), step06::PATCHES),
    (step(7, "step07-cgroups"), step07::PATCHES),
];

const fn step(number: usize, name: &'static str) -> Step {
    Step { number, name, program: "" }
}

fn main() -> ExitCode {
    suite::play_part();
    match trials() {
        Ok((session, trials)) => session.run(trials),
        Err(error) => fail(&error),
    }
}

fn trials() -> Result<(Arc<Session>, Vec<Trial>)> {
    let mut patches: BTreeMap<&str, (Step, Vec<&Test>)> = BTreeMap::new();
    for (step, tests) in STEPS {
        for test in tests {
            let (of, tests) =
                patches.entry(test.name).or_insert((step, vec![]));
            ensure!(
                of.number == step.number
                    && test.name.starts_with(&format!("{:02}-", step.number)),
                "{} is no patch for {}",
                test.name,
                step.name
            );
            tests.push(test);
        }
    }
    let names: BTreeSet<_> = patches.keys().copied().collect();
    let mut trials = vec![Trial::test("each patch is tested", move || {
        each_is_tested(&names)
    })];
    // Before the host is ours alone: what cargo starts is no leak.
    let programs = match Arguments::from_args().list {
        true => BTreeMap::new(),
        false => build::build(
            patches.iter().map(|(name, (step, _))| (*name, step.name)),
        )?,
    };
    let session = Session::new()?;
    for (name, (step, tests)) in patches {
        let program = match programs.get(name) {
            Some(Ok(program)) => program,
            other => {
                let error = match other {
                    Some(Err(error)) => format!("{error:#}"),
                    _ => "not built".to_owned(),
                };
                trials.push(Trial::test(name, || Err(error.into())));
                continue;
            }
        };
        let world = World::new(&session, step, program)?;
        for caller in Caller::ALL {
            let world = &world;
            trials.extend(
                tests.iter().filter_map(|test| world.trial(caller, test)),
            );
        }
    }
    Ok((session, trials))
}

/// Whether the folder's patches are those of the tables.
fn each_is_tested(tested: &BTreeSet<&str>) -> Result<(), Failed> {
    let mut unknown = Vec::new();
    for entry in fs::read_dir(build::FOLDER)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|extension| extension == "patch")
            && !tested.contains(&*name)
        {
            unknown.push(name.into_owned());
        }
    }
    if !unknown.is_empty() {
        return Err(format!("no test for the patches {unknown:?}").into());
    }
    let missing = |name: &&&str| !build::path(name).exists();
    match tested.iter().find(missing) {
        Some(name) => Err(format!("{name}.patch is not there").into()),
        None => Ok(()),
    }
}
