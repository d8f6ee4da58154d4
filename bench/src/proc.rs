//! Proc: what the kernel says that processes cost.
//!
//! Owns:   reading `/proc`; Linux only.
//! Never:  guesses: what cannot be read is an error.

use std::time::Duration;

/// Processor time that a process has used, all its threads, the kernel's share included. Its resolution is the kernel's tick.
pub(crate) fn cpu_of(pid: u32) -> Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let ticks = stat_ticks(&text).ok_or_else(|| format!("{path} is not understood: {text}"))?;
    Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100))
}

/// The most memory a process has had, bytes.
pub(crate) fn peak_of(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    status_peak(&text).ok_or_else(|| format!("{path} says nothing of VmHWM"))
}

/// Processor time that this process has used.
pub(crate) fn cpu_of_self() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// utime + stime. The command's name comes before, in parentheses, and may contain anything.
fn stat_ticks(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn status_peak(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_moves_nothing() {
        let text = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 30 0 0 20 0 5 0 100 1000 50";
        assert_eq!(stat_ticks(text), Some(280));
        assert_eq!(stat_ticks("7 (x"), None);
    }

    #[test]
    fn peaks_are_read() {
        assert_eq!(status_peak("Name:\tx\nVmHWM:\t    1024 kB\n"), Some(1 << 20));
        assert_eq!(status_peak("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_has_both() {
        let pid = std::process::id();
        assert!(cpu_of(pid).is_ok());
        assert!(peak_of(pid).is_ok_and(|peak| peak > 0));
    }
}
