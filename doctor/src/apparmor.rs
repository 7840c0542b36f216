//! AppArmor, the security module of Ubuntu, Debian and Docker on them.

use std::fs;

use crate::sysctls;

/// Ubuntu's profile for whoever made a user namespace without leave: it
/// denies every capability inside.
const RESTRICTED: &str = "unprivileged_userns";

/// The profile that confines us, as in `docker-default`.
pub fn profile() -> Option<String> {
    let label = label()?;
    Some(label.strip_suffix(" (enforce)")?.to_owned())
}

/// Whether Ubuntu's restriction holds us: inside a new user namespace the
/// profile tells, and where that cannot be read, the switch.
pub fn restricts_us() -> bool {
    match label() {
        Some(label) => label.starts_with(RESTRICTED),
        None => restricts_user_namespaces(),
    }
}

/// Whether an ordinary user's namespaces are worth nothing here, or are
/// refused, which Ubuntu does since 23.10.
pub fn restricts_user_namespaces() -> bool {
    sysctls::value("kernel.apparmor_restrict_unprivileged_userns") == Some(1)
}

/// Our label. The second file belongs to whichever security module came
/// first, and SELinux would answer there as well; `profile` tells by the mode.
fn label() -> Option<String> {
    ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"]
        .into_iter()
        .find_map(|file| fs::read_to_string(file).ok())
        .map(|label| label.trim_end_matches(['\n', '\0']).to_owned())
        .filter(|label| !label.is_empty())
}
