//! Which kernel this is, see proc_sys_kernel(5).

use std::fs;
use std::path::Path;

/// The oldest that the steps are made for.
pub const OLDEST: (u32, u32) = (5, 10);

/// Its release, as `uname -r` prints it; `None` when `/proc` does not tell.
pub fn release() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(release.trim_end().to_owned())
}

/// The first two numbers of a release.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

/// Which version of Windows' subsystem for Linux this is, if it is one. The
/// first has no kernel of Linux's, and no namespaces.
pub fn wsl(release: &str) -> Option<u8> {
    let interpreter = Path::new("/proc/sys/fs/binfmt_misc/WSLInterop");
    match release {
        _ if release.ends_with("-Microsoft") => Some(1),
        _ if release.contains("microsoft") => Some(2),
        // A kernel of the user's own.
        _ => interpreter.exists().then_some(2),
    }
}

#[cfg(test)]
mod tests {
    use super::{OLDEST, version, wsl};

    #[test]
    fn releases() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.10-rc1"), Some((5, 10)));
        assert_eq!(version("4.18.0-553.el8_10.x86_64"), Some((4, 18)));
        assert_eq!(version("rolling"), None);
        assert!(version("5.9.16") < Some(OLDEST));
        assert!(version("10.0") > Some(OLDEST));
        assert_eq!(wsl("4.4.0-19041-Microsoft"), Some(1));
        assert_eq!(wsl("5.15.167.4-microsoft-standard-WSL2"), Some(2));
        assert_eq!(wsl("6.6.36.3-microsoft-standard-WSL2+"), Some(2));
    }
}
