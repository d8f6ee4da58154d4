//! Report: what runs came to.
//!
//! Owns:   the shape of one run and of the summary, as JSON and CSV name them.
//! Never:  lays out what people read: `table` does.

use serde::Serialize;

use crate::disk::Disk;
use crate::gauge::Window;
use crate::plan::{Load, Plan, System};
use crate::stats::{self, Ratio};

/// One system under one load, once. Field names are what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) system: System,
    #[serde(flatten)]
    pub(crate) load: Load,
    pub(crate) round: u16,
    /// Why it counts for nothing, if something failed.
    pub(crate) error: Option<String>,
    #[serde(flatten)]
    pub(crate) figures: Figures,
    #[serde(flatten)]
    pub(crate) disk: Option<Disk>,
}

/// What is measured; in a summary, the medians of the rounds that nothing failed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) appends_per_s: f64,
    /// Payload only, millions of bytes.
    pub(crate) mb_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Processor time an append.
    pub(crate) client_cpu_us: f64,
    pub(crate) server_cpu_us: f64,
    /// All servers' peaks together, millions of bytes.
    pub(crate) server_peak_mb: f64,
}

/// One system under one load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Median {
    pub(crate) system: System,
    #[serde(flatten)]
    pub(crate) load: Load,
    /// Rounds that count.
    pub(crate) rounds: usize,
    /// Rounds that do not.
    pub(crate) failed: usize,
    #[serde(flatten)]
    pub(crate) figures: Option<Figures>,
    #[serde(flatten)]
    pub(crate) disk: Option<Disk>,
}

/// Ours by a peer's, of the rounds in which neither failed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Beside {
    pub(crate) ours: System,
    pub(crate) peer: System,
    #[serde(flatten)]
    pub(crate) load: Load,
    pub(crate) appends_per_s: Ratio,
    pub(crate) p50: Ratio,
    pub(crate) p99: Ratio,
    /// Client and servers.
    pub(crate) cpu: Ratio,
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs few digits")]
impl Figures {
    pub(crate) fn new(load: Load, window: &Window, p50_ns: u64, p99_ns: u64) -> Self {
        let appends = window.appends as f64;
        let per_s = appends / window.elapsed.as_secs_f64();
        let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / appends.max(1.0);
        Self {
            appends_per_s: per_s,
            mb_per_s: per_s * load.payload as f64 / 1e6,
            p50_us: p50_ns as f64 / 1e3,
            p99_us: p99_ns as f64 / 1e3,
            client_cpu_us: each(window.client_cpu),
            server_cpu_us: each(window.server_cpu),
            server_peak_mb: window.server_peak as f64 / 1e6,
        }
    }

    fn median(all: &[Self]) -> Option<Self> {
        let of = |take: fn(&Self) -> f64| stats::median(all.iter().map(take));
        Some(Self {
            appends_per_s: of(|one| one.appends_per_s)?,
            mb_per_s: of(|one| one.mb_per_s)?,
            p50_us: of(|one| one.p50_us)?,
            p99_us: of(|one| one.p99_us)?,
            client_cpu_us: of(|one| one.client_cpu_us)?,
            server_cpu_us: of(|one| one.server_cpu_us)?,
            server_peak_mb: of(|one| one.server_peak_mb)?,
        })
    }

    fn cpu_us(&self) -> f64 {
        self.client_cpu_us + self.server_cpu_us
    }
}

/// Of one plan's runs: each system's medians, load by load, in the plan's order. What was not run is left out.
pub(crate) fn medians(plan: &Plan, runs: &[Run]) -> Vec<Median> {
    let mut all = Vec::new();
    for load in &plan.loads {
        for system in &plan.systems {
            let of = || runs.iter().filter(|run| run.load == *load && run.system == *system);
            let (good, failed): (Vec<&Run>, Vec<&Run>) = of().partition(|run| run.error.is_none());
            if good.is_empty() && failed.is_empty() {
                continue;
            }
            let figures: Vec<Figures> = good.iter().map(|run| run.figures).collect();
            let disk =
                |take: fn(&Disk) -> f64| stats::median(of().filter_map(|run| run.disk.as_ref().map(take)));
            all.push(Median {
                system: *system,
                load: *load,
                rounds: good.len(),
                failed: failed.len(),
                figures: Figures::median(&figures),
                disk: disk(|disk| disk.sync_4k_p50_us)
                    .zip(disk(|disk| disk.sync_1m_mb_per_s))
                    .map(|(sync_4k_p50_us, sync_1m_mb_per_s)| Disk { sync_4k_p50_us, sync_1m_mb_per_s }),
            });
        }
    }
    all
}

/// Of one plan's runs: the first system held against each of the others, load by load.
pub(crate) fn beside(plan: &Plan, runs: &[Run]) -> Vec<Beside> {
    let Some((ours, peers)) = plan.systems.split_first() else {
        return Vec::new();
    };
    let one = |load: Load, peer: System| {
        let good = |system: System, round: u16| {
            runs.iter()
                .find(|run| (run.load, run.system, run.round) == (load, system, round) && run.error.is_none())
                .map(|run| run.figures)
        };
        let rounds = || {
            let of_ours = runs.iter().filter(|run| run.load == load && run.system == *ours);
            of_ours.filter_map(|run| good(*ours, run.round).zip(good(peer, run.round)))
        };
        let of =
            |take: fn(&Figures) -> f64| stats::ratio(rounds().map(|(ours, peer)| (take(&ours), take(&peer))));
        Some(Beside {
            ours: *ours,
            peer,
            load,
            appends_per_s: of(|one| one.appends_per_s)?,
            p50: of(|one| one.p50_us)?,
            p99: of(|one| one.p99_us)?,
            cpu: of(Figures::cpu_us)?,
        })
    };
    plan.loads.iter().flat_map(|load| peers.iter().filter_map(|peer| one(*load, *peer))).collect()
}

/// The columns of `--csv`.
pub(crate) const CSV_HEADER: &str = "system,payload_bytes,in_flight,round,appends_per_s,mb_per_s,p50_us,p99_us,client_cpu_us,\
     server_cpu_us,server_peak_mb,sync_4k_p50_us,sync_1m_mb_per_s,error";

impl Run {
    pub(crate) fn csv(&self) -> String {
        let Figures { appends_per_s, mb_per_s, p50_us, p99_us, client_cpu_us, server_cpu_us, server_peak_mb } =
            self.figures;
        let disk = match self.disk {
            Some(Disk { sync_4k_p50_us, sync_1m_mb_per_s }) => {
                format!("{sync_4k_p50_us:.1},{sync_1m_mb_per_s:.1}")
            }
            None => ",".to_owned(),
        };
        let error =
            self.error.as_ref().map(|error| format!("\"{}\"", error.replace('"', "'"))).unwrap_or_default();
        format!(
            "{},{},{},{},{appends_per_s:.1},{mb_per_s:.3},{p50_us:.1},{p99_us:.1},{client_cpu_us:.3},{server_cpu_us:.3},\
             {server_peak_mb:.1},{disk},{error}",
            self.system, self.load.payload, self.load.in_flight, self.round
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::Kind;

    pub(crate) const OURS: System = System { kind: Kind::LogLog, nodes: 1 };
    pub(crate) const PEER: System = System { kind: Kind::Redis, nodes: 1 };
    pub(crate) const LOAD: Load = Load { payload: 100, in_flight: 64 };

    pub(crate) fn plan() -> Plan {
        Plan { systems: vec![OURS, PEER], loads: vec![LOAD] }
    }

    pub(crate) fn run(system: System, round: u16, per_s: f64) -> Run {
        let disk = Some(Disk { sync_4k_p50_us: 150.0, sync_1m_mb_per_s: 900.0 });
        let figures = Figures {
            appends_per_s: per_s,
            mb_per_s: per_s / 1e4,
            p50_us: 1e6 / per_s,
            p99_us: 2e6 / per_s,
            client_cpu_us: 1.0,
            server_cpu_us: 2.0,
            server_peak_mb: 20.0,
        };
        Run { system, load: LOAD, round, error: None, figures, disk }
    }

    #[test]
    fn a_round_with_an_error_counts_for_nothing() {
        let mut runs =
            vec![run(OURS, 1, 400.0), run(PEER, 1, 100.0), run(OURS, 2, 500.0), run(PEER, 2, 250.0)];
        let medians_of = |runs: &[Run]| medians(&plan(), runs)[0].figures.expect("rounds").appends_per_s;
        assert!((medians_of(&runs) - 450.0).abs() < 1e-9);
        assert_eq!(beside(&plan(), &runs)[0].appends_per_s, Ratio { least: 2.0, median: 3.0, most: 4.0 });
        runs[3].error = Some("lost".to_owned());
        assert_eq!(beside(&plan(), &runs)[0].appends_per_s, Ratio { least: 4.0, median: 4.0, most: 4.0 });
        let medians = medians(&plan(), &runs);
        assert_eq!((medians[1].rounds, medians[1].failed), (1, 1));
        runs[1].error = Some("lost".to_owned());
        assert!(beside(&plan(), &runs).is_empty());
    }

    #[test]
    fn lines_have_as_many_columns_as_the_header() {
        let columns = CSV_HEADER.split(',').count();
        let mut one = run(OURS, 1, 400.0);
        assert_eq!(one.csv().split(',').count(), columns);
        one.disk = None;
        one.error = Some("a \"bad\" end".to_owned());
        assert_eq!(one.csv().split(',').count(), columns);
        assert!(one.csv().ends_with(",\"a 'bad' end\""));
    }

    #[test]
    fn json_is_flat() {
        let json = serde_json::to_value(run(OURS, 1, 400.0)).expect("JSON");
        for field in
            ["system", "payload_bytes", "in_flight", "round", "appends_per_s", "sync_4k_p50_us", "error"]
        {
            assert!(json.get(field).is_some(), "{field} in {json}");
        }
    }
}
