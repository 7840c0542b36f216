//! What mdBook is silent about, and what only this project asks for.

use std::path::Path;

use anyhow::Result;

use crate::generated;

/// Everything that is wrong, a line each.
pub fn all(root: &Path) -> Result<Vec<String>> {
    let mut wrong = generated::check(root)?;
    Ok(wrong)
}
