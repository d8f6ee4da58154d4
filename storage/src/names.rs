//! File names in a data directory.
//!
//! Owns:   which names are ours, and what each says.
//! Never:  touches a file. Whatever is not recognised here is foreign and left alone (S7).

use std::ffi::OsStr;

use loglog_proto::Offset;

/// The file whose lock holds the directory.
pub(crate) const LOCK: &str = "lock";
/// Term, vote, identity, membership and mark.
pub(crate) const META: &str = "meta";
/// What `meta` is called until it is whole.
pub(crate) const META_TEMPORARY: &str = "meta.tmp";
/// The checkpoint of the writers' table (S27).
pub(crate) const CHECKPOINT: &str = "writers";
/// What the checkpoint is called until it is whole.
pub(crate) const CHECKPOINT_TEMPORARY: &str = "writers.tmp";

/// What a file in the data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Lock,
    Meta,
    /// A segment and its base offset.
    Segment(Offset),
    /// Ours, unfinished, worth nothing after a crash.
    Temporary,
    /// A segment of a snapshot under way (S25), and its base offset.
    Install(Offset),
    /// Bytes that recovery set aside.
    Side,
    Checkpoint,
    Foreign,
}

impl Name {
    pub(crate) fn of(name: &OsStr) -> Self {
        let Some(name) = name.to_str() else { return Self::Foreign };
        match name {
            LOCK => return Self::Lock,
            META => return Self::Meta,
            CHECKPOINT => return Self::Checkpoint,
            META_TEMPORARY | CHECKPOINT_TEMPORARY => return Self::Temporary,
            _ => {}
        }
        if let Some(base) = name.strip_suffix(".seg").and_then(hex_16) {
            return Self::Segment(Offset::new(base));
        }
        if let Some(stem) = name.strip_suffix(".tmp") {
            if let Some(base) = stem.strip_prefix("install-").and_then(hex_16) {
                return Self::Install(Offset::new(base));
            }
            let number = stem.strip_prefix("segment-");
            if number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
                return Self::Temporary;
            }
        }
        if side_stem(name).is_some() { Self::Side } else { Self::Foreign }
    }
}

/// `<base offset, 16 hex digits>.seg`
pub(crate) fn segment(base: Offset) -> String {
    format!("{:016x}.seg", base.get())
}

/// A segment that is being prepared.
pub(crate) fn spare(number: u64) -> String {
    format!("segment-{number}.tmp")
}

/// A segment of a snapshot that is being installed.
pub(crate) fn install(base: Offset) -> String {
    format!("install-{:016x}.tmp", base.get())
}

/// Bytes cut from the end of the log: `torn-<offset>-<n>.bak`.
pub(crate) fn torn(offset: Offset, number: u32) -> String {
    format!("torn-{:016x}-{number}.bak", offset.get())
}

/// A whole segment file given up with the loss accepted: `lost-<base offset>-<n>.bak`.
pub(crate) fn lost(base: Offset, number: u32) -> String {
    format!("lost-{:016x}-{number}.bak", base.get())
}

fn side_stem(name: &str) -> Option<u64> {
    let stem = name.strip_suffix(".bak")?;
    let rest = stem.strip_prefix("torn-").or_else(|| stem.strip_prefix("lost-"))?;
    let (offset, number) = rest.split_once('-')?;
    number.parse::<u32>().ok()?;
    hex_16(offset)
}

/// Exactly 16 lower-case hex digits.
fn hex_16(text: &str) -> Option<u64> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 16 || !text.bytes().all(lower) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s07_names_are_recognised_and_others_are_foreign() {
        let of = |name: &str| Name::of(OsStr::new(name));
        let at = Offset::new(0xab_cdef);
        assert_eq!(of(&segment(at)), Name::Segment(at));
        assert_eq!(of(&install(at)), Name::Install(at));
        assert_eq!(of(&spare(12)), Name::Temporary);
        assert_eq!(of(&torn(at, 3)), Name::Side);
        assert_eq!(of(&lost(at, 3)), Name::Side);
        assert_eq!(of(META), Name::Meta);
        assert_eq!(of(META_TEMPORARY), Name::Temporary);
        for foreign in
            ["notes.txt", "x.tmp", "segment-.tmp", "segment-1a.tmp", "0.seg", "000000000000000G.seg"]
        {
            assert_eq!(of(foreign), Name::Foreign, "{foreign}");
        }
        assert_eq!(of("00000000000000AB.seg"), Name::Foreign, "one base offset, one name");
    }
}
