//! What more than one step has to do beside the table, by the part of the
//! step that does it.

pub mod host_name;
pub mod init;
pub mod job_control;
pub mod launcher;
pub mod limits;
pub mod proc;
pub mod root;
