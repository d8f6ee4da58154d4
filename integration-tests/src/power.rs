//! Power: has a file system lose, in one moment, all that was not synced.
//!
//! Owns:   the one call that does it.
//! Never:  touches a file system but the one of the directory that it is given.

// The call that shuts a file system down has no safe wrapper.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use rustix::ioctl::{Setter, ioctl, opcode};

/// `FS_IOC_SHUTDOWN` (XFS calls it `GOINGDOWN`): reads a `u32`, although its number says that it writes one.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// Without writing the journal first: what is in memory only is lost.
const NO_LOG_FLUSH: u32 = 2;

/// Shuts down the file system that `directory` lies on: nothing that it holds in memory reaches the disk any more, every write and sync
/// fails. It is of use again once it was unmounted and mounted.
///
/// # Errors
/// If the file system cannot do that, or the caller is not root.
pub fn cut(directory: &File) -> io::Result<()> {
    // SAFETY: the kernel reads four bytes through the pointer during the call and keeps none of it; `Setter` owns a `u32` that
    // lives as long. The descriptor is open. The call touches no memory of this process.
    unsafe { ioctl(directory, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }?;
    Ok(())
}
