//! What the machine is to do: written by the launcher, read by its init.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The command and everything around it, byte for byte.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Job {
    /// The user, the group and the other groups to run it as; root when empty.
    pub ids: Vec<u32>,
    /// Lines and columns of the terminal, when there is one.
    pub size: Option<(u16, u16)>,
    /// Whether stderr goes elsewhere than to the terminal.
    pub errors_apart: bool,
    pub directory: PathBuf,
    pub command: Vec<OsString>,
    pub variables: Vec<(OsString, OsString)>,
}

impl Job {
    /// Where it is in the machine's room.
    fn path(room: &Path) -> PathBuf {
        room.join("job")
    }

    pub fn save(&self, room: &Path) -> Result<()> {
        let path = Self::path(room);
        fs::write(&path, self.to_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn load(room: &Path) -> Result<Self> {
        let path = Self::path(room);
        let bytes = fs::read(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::from_bytes(&bytes).context("the job is damaged")
    }

    /// Fields that end with NUL, which no argument and no variable can have.
    fn to_bytes(&self) -> Vec<u8> {
        let size = self.size.map(|(lines, columns)| [lines, columns]);
        let mut fields = vec![
            words(&self.ids).into(),
            words(size.as_ref().map_or(&[][..], |size| size)).into(),
            u8::from(self.errors_apart).to_string().into(),
            self.directory.clone().into_os_string(),
            self.command.len().to_string().into(),
        ];
        fields.extend(self.command.iter().cloned());
        for (name, value) in &self.variables {
            let mut field = name.clone();
            field.push("=");
            field.push(value);
            fields.push(field);
        }
        let mut bytes = Vec::new();
        for field in fields {
            bytes.extend_from_slice(field.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.strip_suffix(&[0])?.split(|byte| *byte == 0);
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        let ids = numbers(text()?)?;
        let size = match numbers(text()?)?[..] {
            [lines, columns] => Some((lines, columns)),
            _ => None,
        };
        let errors_apart = text()? == "1";
        let directory = PathBuf::from(owned(fields.next()?));
        let length: usize =
            std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let command: Vec<_> = fields.by_ref().take(length).map(owned).collect();
        let variables = fields.map(|field| {
            // A name may begin with the sign.
            let end = 1 + field.iter().skip(1).position(|b| *b == b'=')?;
            Some((owned(&field[..end]), owned(&field[end + 1..])))
        });
        let variables = variables.collect::<Option<_>>()?;
        Some(Self { ids, size, errors_apart, directory, command, variables })
    }
}

/// Numbers with a space between them.
pub fn words<T: ToString>(numbers: &[T]) -> String {
    numbers.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}

/// The numbers in a text from [`words`].
pub fn numbers<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    text.split_whitespace().map(|word| word.parse().ok()).collect()
}

fn owned(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// The last value of a variable.
pub fn variable<'a>(
    variables: &'a [(OsString, OsString)],
    name: &str,
) -> Option<&'a OsStr> {
    let mut found = variables.iter().rev().filter(|(key, _)| key == name);
    found.next().map(|(_, value)| value.as_os_str())
}

#[cfg(test)]
mod tests {
    use super::Job;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    #[test]
    fn nothing_is_lost() {
        let odd = OsString::from_vec(b"\xff\n =\"'".to_vec());
        let job = Job {
            ids: vec![1000, 1000, 4, 24],
            size: Some((24, 80)),
            errors_apart: true,
            directory: odd.clone().into(),
            command: vec!["sh".into(), "".into(), odd.clone(), "".into()],
            variables: vec![("A".into(), odd), ("=B".into(), "".into())],
        };
        assert_eq!(Job::from_bytes(&job.to_bytes()), Some(job));
        let empty = Job::default();
        assert_eq!(Job::from_bytes(&empty.to_bytes()), Some(empty));
    }
}
