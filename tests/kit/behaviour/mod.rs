//! What more than one step has to do beside the table, by the part of the
//! step that does it.

pub mod faults;
pub mod host_name;
pub mod hostile_roots;
pub mod init;
pub mod job_control;
pub mod kills;
pub mod launcher;
pub mod limits;
pub mod nested;
pub mod proc;
pub mod root;
pub mod security;
pub mod terminals;

use crate::harness::Test;

/// The lists of tests, each with the first step that it is for.
pub(crate) const SINCE: &[(usize, &[Test])] = &[
    (1, launcher::TESTS),
    (1, launcher::AS_ROOT),
    (1, launcher::ANYWHERE),
    (1, job_control::TESTS),
    (2, host_name::TESTS),
    (3, init::TESTS),
    (4, root::TESTS),
    (5, proc::TESTS),
    (4, security::AS_ROOT),
    (6, root::PIVOTED),
    (6, security::PIVOTED),
    (7, limits::TESTS),
    (7, limits::ANYWHERE),
    (7, limits::AS_USER),
    (7, security::LEFT_OPEN),
];

/// The same for what takes long; see `SUITE_FIRE`.
pub(crate) const UNDER_FIRE: &[(usize, &[Test])] = &[
    (1, faults::TESTS),
    (1, terminals::TESTS),
    (3, terminals::FROM_PID_1),
    (3, kills::UNDER_FIRE),
    (4, hostile_roots::UNDER_FIRE),
    (5, hostile_roots::MOUNTED),
    (5, nested::UNDER_FIRE),
    (6, hostile_roots::PIVOTED),
    (6, nested::PIVOTED),
    (7, terminals::LIMITED),
];
