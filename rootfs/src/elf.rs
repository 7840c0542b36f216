//! What an ELF file says about the shared libraries that it needs.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use elf::abi::{
    DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, PT_INTERP, PT_LOAD,
};
use elf::endian::AnyEndian;
use elf::string_table::StringTable;
use elf::{ElfBytes, file::Class};

use crate::os_str;

/// The part of an ELF file that ld.so(8) reads first.
pub(crate) struct Elf {
    /// What the kernel starts in place of a dynamic program.
    pub(crate) loader: Option<PathBuf>,
    /// Names of the libraries that it needs.
    pub(crate) needed: Vec<OsString>,
    /// Where to look for them first: DT_RUNPATH. When there is one, DT_RPATH
    /// does not count and is left empty.
    pub(crate) runpath: Vec<OsString>,
    /// The same for all libraries of the program, further down as well.
    pub(crate) rpath: Vec<OsString>,
    kind: (Class, u16),
}

impl Elf {
    /// None when this is not an ELF file, or a broken one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Elf> {
        let file = ElfBytes::<AnyEndian>::minimal_parse(bytes).ok()?;
        let segments = file.segments()?;
        let loader = segments
            .iter()
            .find(|segment| segment.p_type == PT_INTERP)
            .map(|segment| file.segment_data(&segment))
            .transpose()
            .ok()?
            .map(|name| until_nul(name).into());
        let mut parsed = Elf {
            loader,
            needed: Vec::new(),
            runpath: Vec::new(),
            rpath: Vec::new(),
            kind: (file.ehdr.class, file.ehdr.e_machine),
        };

        let Some(dynamic) = file.dynamic().ok()? else {
            return Some(parsed);
        };
        let value = |tag| dynamic.iter().find(|d| d.d_tag == tag);
        let (address, size) =
            (value(DT_STRTAB)?.d_ptr(), value(DT_STRSZ)?.d_val());
        // The table is named by its address once loaded.
        let offset = segments.iter().find_map(|segment| {
            let within = address.checked_sub(segment.p_vaddr)?;
            (segment.p_type == PT_LOAD && within < segment.p_filesz)
                .then(|| segment.p_offset.checked_add(within))?
        })?;
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        let strings = StringTable::new(bytes.get(start..end)?);
        for entry in dynamic.iter() {
            let text = || strings.get_raw(entry.d_val() as usize).ok();
            let list = || {
                let paths = text()?.split(|&byte| byte == b':');
                Some(paths.map(|path| os_str(path).into()).collect())
            };
            match entry.d_tag {
                DT_NEEDED => parsed.needed.push(os_str(text()?).into()),
                DT_RUNPATH => parsed.runpath = list()?,
                DT_RPATH => parsed.rpath = list()?,
                _ => {}
            }
        }
        if !parsed.runpath.is_empty() {
            parsed.rpath.clear();
        }
        Some(parsed)
    }

    /// Whether the two can be in one process: not, for one, a 32-bit library
    /// of the same name.
    pub(crate) fn fits(&self, other: &Elf) -> bool {
        self.kind == other.kind
    }
}

fn until_nul(bytes: &[u8]) -> &OsStr {
    os_str(bytes.split(|&byte| byte == 0).next().unwrap_or_default())
}

/// All libraries that ld.so's cache names: the strings in it that are paths.
/// Both of its formats keep them like that, one after the other.
///
/// Variants for particular processors are left out: the base one runs
/// everywhere.
pub(crate) fn parse_cache(bytes: &[u8]) -> Vec<PathBuf> {
    bytes
        .split(|&byte| byte == 0)
        .filter(|text| text.starts_with(b"/"))
        .map(|text| Path::new(os_str(text)).to_path_buf())
        .filter(|path| !path.iter().any(|part| part == "glibc-hwcaps"))
        .collect()
}
