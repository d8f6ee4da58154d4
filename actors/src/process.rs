//! Process: what the operating system says that the process of this node uses.
//!
//! Keeps:  nothing; each number is looked up when it is asked for. A node inside a program tells of the whole program.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Processor time used so far, by all threads.
pub(crate) fn cpu_time() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok().map(Duration::from)
}

/// Memory in use, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// The most that it ever was.
    pub(crate) peak: u64,
}

/// `None` where the system has no such file.
pub(crate) fn memory() -> Option<Memory> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    };
    Some(Memory { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_numbers_are_found_and_half_of_them_is_none() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(parse(status), Some(Memory { resident: 1 << 20, peak: 2 << 20 }));
        assert_eq!(parse("VmRSS:\t 1 kB\n"), None);
    }

    #[test]
    fn this_process_uses_something() {
        assert!(cpu_time().is_some_and(|time| time > Duration::ZERO));
        let memory = memory().unwrap();
        assert!(memory.peak >= memory.resident && memory.resident > 0, "{memory:?}");
    }
}
