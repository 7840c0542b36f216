//! What more than one step has to do beside the table, by the part of the
//! step that does it.

pub mod launcher;
