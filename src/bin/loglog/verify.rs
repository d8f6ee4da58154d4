//! `loglog verify`: checks data directories byte for byte, and against each other. Needs no node, changes nothing.

mod compare;

use std::path::{Path, PathBuf};

use loglog_storage::{VerifyReport, verify};
use serde_json::{Value, json};

use crate::exit::{Exit, Outcome, Stop};
use crate::output::Output;
use crate::table::{facts, grouped};
use compare::{Difference, compare};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Data directories. A node may be running on them; then the last bytes may be half written.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,

    /// Check too that they are the same log: nodes of one cluster hold the same bytes.
    #[arg(long)]
    compare: bool,

    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    if args.compare && args.dirs.len() < 2 {
        return Err(Stop::new(Exit::Usage, "--compare needs at least two directories"));
    }
    let mut reports = Vec::new();
    for dir in &args.dirs {
        let report = verify(dir).map_err(|failure| Stop::failed(failure.to_string()))?;
        reports.push((dir.as_path(), report));
    }
    let mut differences = Vec::new();
    if args.compare
        && let Some((first, others)) = reports.split_first()
    {
        for other in others {
            let found = compare((first.0, &first.1), (other.0, &other.1));
            differences.extend(found.map_err(|error| Stop::failed(format!("cannot compare: {error}")))?);
        }
    }
    let mut output = Output::new();
    if args.json {
        let dirs: Vec<Value> = reports.iter().map(|(dir, report)| as_json(dir, report)).collect();
        let found: Vec<Value> = differences.iter().map(Difference::as_json).collect();
        output.json(&json!({ "directories": dirs, "differences": found }))?;
    } else {
        for (dir, report) in &reports {
            output.bytes(as_text(dir, report).as_bytes())?;
        }
        for difference in &differences {
            output.line(difference)?;
        }
        if args.compare && differences.is_empty() {
            output.line("the directories hold the same log, as far as each goes")?;
        }
    }
    output.flush()?;
    let damaged = reports.iter().filter(|(_, report)| !report.is_sound()).count();
    let different = differences.iter().filter(|difference| difference.damage).count();
    match (damaged, different) {
        (0, 0) => Ok(()),
        (0, _) => Err(Stop::new(Exit::Damaged, "the directories do not hold the same log")),
        (count, _) => {
            Err(Stop::new(Exit::Damaged, format!("{count} of {} directories are damaged", reports.len())))
        }
    }
}

fn as_text(dir: &Path, report: &VerifyReport) -> String {
    let unknown = || "unknown".to_owned();
    let state = report.state.as_ref();
    let mut text = format!("{}: {}\n", dir.display(), if report.is_sound() { "sound" } else { "DAMAGED" });
    text.push_str(&facts(&[
        ("  cluster", state.map_or_else(unknown, |state| state.cluster.to_string())),
        ("  node", state.map_or_else(unknown, |state| format!("{} (term {})", state.node, state.term))),
        (
            "  log",
            format!(
                "{} to {}, mark {}",
                state.map_or_else(unknown, |state| state.start.offset.to_string()),
                report.end,
                report.mark.map_or_else(unknown, |mark| mark.offset.to_string())
            ),
        ),
        (
            "  checked",
            format!(
                "{} entries in {} batches, {} bytes in {} segments",
                grouped(report.entries),
                grouped(report.batches),
                grouped(report.bytes),
                report.segments.len()
            ),
        ),
    ]));
    for finding in &report.findings {
        let word = if finding.damage { "DAMAGE" } else { "note" };
        let place = finding.offset.map(|offset| format!(", offset {offset}")).unwrap_or_default();
        text.push_str(&format!("  {word}: {}{place}: {}\n", finding.path.display(), finding.what));
    }
    for path in &report.side_files {
        text.push_str(&format!("  note: {}: kept aside by a recovery\n", path.display()));
    }
    for path in &report.foreign_files {
        text.push_str(&format!("  note: {}: not LogLog's\n", path.display()));
    }
    text
}

fn as_json(dir: &Path, report: &VerifyReport) -> Value {
    let state = report.state.as_ref();
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            json!({
                "path": finding.path.to_string_lossy(),
                "offset": finding.offset.map(loglog_proto::Offset::get),
                "what": finding.what,
                "damage": finding.damage,
            })
        })
        .collect();
    let names =
        |paths: &[PathBuf]| paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>();
    json!({
        "directory": dir.to_string_lossy(),
        "sound": report.is_sound(),
        "cluster": state.map(|state| state.cluster.to_string()),
        "node": state.map(|state| state.node.get()),
        "term": state.map(|state| state.term.get()),
        "start": state.map(|state| state.start.offset.get()),
        "end": report.end.get(),
        "mark": report.mark.map(|mark| mark.offset.get()),
        "segments": report.segments.len(),
        "batches": report.batches,
        "entries": report.entries,
        "bytes": report.bytes,
        "side_files": names(&report.side_files),
        "foreign_files": names(&report.foreign_files),
        "findings": findings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use loglog_proto::Offset;
    use loglog_storage::Finding;

    #[test]
    fn a_finding_names_file_offset_and_weight() {
        let finding = Finding {
            path: "/d/x.seg".into(),
            offset: Some(Offset::new(7)),
            what: "wrong".to_owned(),
            damage: true,
        };
        let mut report = VerifyReport { findings: vec![finding], ..VerifyReport::default() };
        let text = as_text(Path::new("/d"), &report);
        assert!(text.starts_with("/d: DAMAGED\n"), "{text}");
        assert!(text.contains("  DAMAGE: /d/x.seg, offset 7: wrong\n"), "{text}");
        assert_eq!(as_json(Path::new("/d"), &report)["sound"], false);
        report.findings[0].damage = false;
        assert!(as_text(Path::new("/d"), &report).contains("  note: /d/x.seg"));
    }

    #[test]
    fn one_directory_cannot_be_compared() {
        let args = Args { dirs: vec!["/d".into()], compare: true, json: false };
        assert!(matches!(run(&args), Err(Stop::Failure(Exit::Usage, _))));
    }
}
