//! What became of each test, written down for `.ci/table`.

use std::env;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Names the folder for the files: one for each process, so that nobody
/// writes into another's.
const FOLDER: &str = "SUITE_RESULTS";

/// What this host is called in the table.
const HOST: &str = "SUITE_HOST";

/// One process's file, if somebody wants to know.
pub struct Results {
    file: Option<Mutex<File>>,
    host: String,
}

impl Results {
    /// Makes the file.
    pub fn new() -> Result<Self> {
        let file = env::var_os(FOLDER).map(PathBuf::from).map(|folder| {
            let mut file = tempfile::Builder::new();
            file.prefix("").suffix(".tsv").disable_cleanup(true);
            file.tempfile_in(&folder).with_context(|| {
                format!("cannot write results to {}", folder.display())
            })
        });
        Ok(Self {
            file: file.transpose()?.map(|file| Mutex::new(file.into_file())),
            host: env::var(HOST).unwrap_or_else(|_| "here".to_owned()),
        })
    }

    /// Says that so many tests of that step begin, by that caller: when fewer
    /// lines follow, they did not come to their end.
    pub fn plan(&self, step: &str, tests: usize, caller: &str) {
        self.line(&[step, "plan", &tests.to_string(), caller]);
    }

    /// One test: `passed`, `failed` or `skipped`, and why.
    pub fn record(
        &self,
        step: &str,
        name: &str,
        outcome: &str,
        took: Duration,
        why: &str,
    ) {
        let took = took.as_millis().to_string();
        self.line(&[step, "test", name, outcome, &took, why]);
    }

    fn line(&self, fields: &[&str]) {
        if let Some(file) = &self.file {
            let line = [&[&*self.host], fields].concat().join("\t");
            let line = line.replace(['\n', '\r'], " ") + "\n";
            let mut file = file.lock().expect("nobody panics with it");
            // The table misses what is not in there.
            let _ = file.write_all(line.as_bytes());
        }
    }
}
