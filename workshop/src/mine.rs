//! `mine/`: the participant's own crate, ignored by git and no member of the
//! workspace.
