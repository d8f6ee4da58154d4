//! Table: what people read.
//!
//! Owns:   the layout.
//! Never:  computes: `report` does.

use std::fmt::Write as _;

use crate::plan::{Plan, System};
use crate::report::{self, Beside, Median, Run};
use crate::servers::Server;
use crate::stats::{Ratio, bytes_text, grouped, micros_text};

const COLUMNS: [&str; 9] =
    ["", "appends/s", "MB/s", "p50", "p99", "CPU: client", "servers", "peak memory", "disk: 4 KiB, 1 MiB"];

/// All of one plan.
pub(crate) fn table(plan: &Plan, runs: &[Run]) -> String {
    let (medians, beside) = (report::medians(plan, runs), report::beside(plan, runs));
    let mut out = String::new();
    for load in &plan.loads {
        let rows: Vec<&Median> = medians.iter().filter(|one| one.load == *load).collect();
        if rows.is_empty() {
            continue;
        }
        let mut cells = vec![COLUMNS.map(str::to_owned)];
        cells[0][0] = format!("{}, {} in flight", bytes_text(load.payload), load.in_flight);
        cells.extend(rows.iter().map(|row| cells_of(row)));
        lay_out(&mut out, &cells);
        for one in beside.iter().filter(|one| one.load == *load) {
            out.push_str(&beside_line(one));
        }
        for row in rows.iter().filter(|row| row.failed > 0) {
            let _ = writeln!(
                out,
                "  {}: {} of {} rounds FAILED and count for nothing",
                row.system,
                row.failed,
                row.rounds + row.failed
            );
        }
        out.push('\n');
    }
    out
}

fn cells_of(row: &Median) -> [String; 9] {
    let Some(figures) = row.figures else {
        return std::array::from_fn(|at| if at == 0 { format!("  {}", row.system) } else { "-".to_owned() });
    };
    let disk = row
        .disk
        .map(|disk| format!("{}, {:.0} MB/s", micros_text(disk.sync_4k_p50_us), disk.sync_1m_mb_per_s));
    [
        format!("  {}", row.system),
        grouped(figures.appends_per_s),
        format!("{:.1}", figures.mb_per_s),
        micros_text(figures.p50_us),
        micros_text(figures.p99_us),
        format!("{:.1} us", figures.client_cpu_us),
        format!("{:.1} us", figures.server_cpu_us),
        format!("{:.0} MB", figures.server_peak_mb),
        disk.unwrap_or_default(),
    ]
}

/// The first column to the left, all others to the right.
fn lay_out(out: &mut String, rows: &[[String; 9]]) {
    let widths: [usize; 9] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let mut line = format!("{:<1$}", row[0], widths[0].max(24));
        for (cell, width) in row.iter().zip(widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

fn beside_line(one: &Beside) -> String {
    let Ratio { least, median, most } = one.appends_per_s;
    format!(
        "  {} / {}: {} times the appends/s ({} to {}), {} times its p50, {} its p99, {} its processor time an append\n",
        one.ours,
        one.peer,
        times(median),
        times(least),
        times(most),
        times(one.p50.median),
        times(one.p99.median),
        times(one.cpu.median)
    )
}

/// Two digits that matter.
fn times(ratio: f64) -> String {
    match ratio {
        _ if ratio >= 10.0 => format!("{ratio:.0}"),
        _ if ratio >= 1.0 => format!("{ratio:.1}"),
        _ => format!("{ratio:.2}"),
    }
}

/// What is compared, and what an acknowledgement means with each.
pub(crate) fn preface(systems: &[System], servers: &[Server], cores: usize) -> String {
    let mut out = format!("client and servers share {cores} cores and one disk; acknowledged means:\n");
    for system in systems {
        let version =
            servers.iter().find(|server| server.kind == system.kind).map(|server| server.version.as_str());
        let _ = writeln!(out, "  {system} ({}): {}", version.unwrap_or("?"), system.acknowledgement());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{OURS, PEER, plan, run};

    #[test]
    fn people_see_medians_ratios_and_failures() {
        let mut runs =
            vec![run(OURS, 1, 4000.0), run(PEER, 1, 1000.0), run(OURS, 2, 3000.0), run(PEER, 2, 1000.0)];
        let text = table(&plan(), &runs);
        let expected = "\
100 B, 64 in flight       appends/s  MB/s     p50     p99  CPU: client  servers  peak memory  disk: 4 KiB, 1 MiB
  loglog-1                    3,500   0.3  292 us  583 us       1.0 us   2.0 us        20 MB    150 us, 900 MB/s
  redis-1                     1,000   0.1  1.00 ms  2.00 ms       1.0 us   2.0 us        20 MB    150 us, 900 MB/s
  loglog-1 / redis-1: 3.5 times the appends/s (3.0 to 4.0), 0.29 times its p50, 0.29 its p99, 1.0 its processor time an append
";
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&text), squeezed(expected), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].len(), lines[1].len(), "{text}");
        assert_eq!(lines[0].len(), lines[2].len(), "{text}");

        runs[1].error = Some("lost".to_owned());
        assert!(table(&plan(), &runs).contains("redis-1: 1 of 2 rounds FAILED"));
        assert_eq!(table(&plan(), &[]), "");
    }

    #[test]
    fn a_system_that_always_failed_has_no_figures() {
        let mut runs = vec![run(OURS, 1, 4000.0), run(PEER, 1, 1000.0)];
        runs[1].error = Some("lost".to_owned());
        let text = table(&plan(), &runs);
        assert!(!text.contains(" / "), "{text}");
        assert!(text.lines().any(|line| line.starts_with("  redis-1 ") && line.ends_with('-')), "{text}");
    }
}
