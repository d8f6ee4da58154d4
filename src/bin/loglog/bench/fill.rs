//! Fill: makes a log long, as fast as it goes.
//!
//! Owns:   the look at the disk before: a bench must not be what fills it.

use std::collections::VecDeque;
use std::path::Path;

use loglog_client::{Client, Offset, Ticket};

use super::load::Writer;
use super::payload::Source;
use crate::connect::{stop, stop_append};
use crate::exit::{Outcome, Stop};
use loglog::units::about_bytes;

/// What is left free at least: nodes refuse appends below some of it, and others use the disk, too.
const LEFT: u64 = 1 << 30;
/// Appends in flight, and their bytes.
const IN_FLIGHT: usize = 1024;
const BYTES: usize = 16 << 20;

/// Refuses where `within` has no room for `bytes` more.
pub(super) fn check_room(within: &Path, bytes: u64) -> Outcome {
    let failed =
        |error| Stop::failed(format!("cannot look at {}: {error} (--data says where)", within.display()));
    let disk = rustix::fs::statvfs(within).map_err(failed)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < bytes.saturating_add(LEFT) {
        return Err(Stop::failed(format!(
            "{} has {} free, and {} are needed, {} of them to be left: give a smaller size, or another disk with --data",
            within.display(),
            about_bytes(free),
            about_bytes(bytes.saturating_add(LEFT)),
            about_bytes(LEFT)
        )));
    }
    Ok(())
}

/// Appends until the log has `length` bytes. Returns how many entries that took.
pub(super) async fn fill(client: &Client, source: &Source, length: u64) -> Outcome<u64> {
    let ends = client.ends(true).await.map_err(|error| stop(&error))?;
    let wanted = length.saturating_sub(ends.length().get());
    if wanted == 0 {
        return Ok(0);
    }
    let until = ends.end + loglog_proto::Length::new(wanted);
    let in_flight = (BYTES / source.payload_max().max(1)).clamp(1, IN_FLIGHT);
    // A number that no writer of a measurement has.
    let mut writer = Writer::new(client, source, u64::MAX, in_flight);
    let mut flying: VecDeque<Ticket> = VecDeque::with_capacity(in_flight);
    let (mut end, mut entries) = (Offset::ZERO, 0);
    while end < until {
        if flying.len() == in_flight
            && let Some(ticket) = flying.pop_front()
        {
            end = ticket.await.map_err(|error| stop_append(&error))?.end;
        }
        flying.push_back(writer.send().await.map_err(|error| stop_append(&error))?);
        entries += 1;
    }
    for ticket in flying {
        ticket.await.map_err(|error| stop_append(&error))?;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_small_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        match check_room(dir.path(), 1 << 60) {
            Err(Stop::Failure(_, message)) => assert!(message.contains("--data"), "{message}"),
            other => panic!("{other:?}"),
        }
    }
}
