//! `compare`: LogLog and what else would be picked for the job, under the same load, in turns.
//!
//! Owns:   the order of runs, and the end of all of it on a signal.
//! Keeps:  every system is started afresh for every run, so none has to carry what an earlier one left; no server and no folder outlives
//!         the program, unless it is killed outright.

mod args;
mod cluster;
mod disk;
mod gauge;
mod plan;
mod proc;
mod report;
mod servers;
mod stats;
mod systems;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use args::Args;
use cluster::Folder;
use gauge::Gauge;
use plan::{Kind, Load, Plan, System};
use report::{Figures, Run};
use servers::Server;

/// What a run may take beyond its warm-up and its window: connecting, and waiting for what is in flight.
const MORE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let args = Args::parse();
    match compare(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything went well. What could not be done at all is an error.
fn compare(args: &Args) -> Result<bool, String> {
    let signalled = signals()?;
    let (plans, servers) = who_is_there(args)?;
    let folder = Folder::make(args.data.join(format!("loglog-compare-{}", std::process::id())))?;
    if disk::in_memory(folder.path()) {
        eprintln!(
            "compare: --data {} is in memory: nothing is durable there, these figures say nothing",
            args.data.display()
        );
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let all: Vec<System> = plans.iter().flat_map(|plan| plan.systems.clone()).collect();
    let preface = table::preface(&all, &servers, cores);
    if args.csv {
        println!("{}", report::CSV_HEADER);
    }
    let (mut done, mut well) = (Vec::new(), true);
    for plan in &plans {
        let Some(runs) = rounds(args, plan, &servers, &folder, &signalled) else {
            return Err("interrupted".to_owned());
        };
        well &= runs.iter().all(|run| run.error.is_none());
        done.push(runs);
    }
    if args.json {
        println!("{}", summary(args, &plans, &done, &servers, cores));
    } else if !args.csv {
        println!("{preface}");
        plans.iter().zip(&done).for_each(|(plan, runs)| print!("{}", table::table(plan, runs)));
    }
    Ok(well)
}

/// The plans without whom nobody asked for by name and who is not there.
fn who_is_there(args: &Args) -> Result<(Vec<Plan>, Vec<Server>), String> {
    let mut plans = args.plans();
    let mut servers: Vec<Server> = Vec::new();
    let mut missing: Vec<Kind> = Vec::new();
    for kind in plans.iter().flat_map(|plan| &plan.systems).map(|system| system.kind) {
        if missing.contains(&kind) || servers.iter().any(|server| server.kind == kind) {
            continue;
        }
        match servers::find(kind, &args.servers) {
            Ok(server) => servers.push(server),
            Err(error) if !args.systems.is_empty() || args.servers.of(kind).is_some() => return Err(error),
            Err(error) if kind == Kind::LogLog => return Err(error),
            Err(error) => {
                eprintln!("compare: {} is SKIPPED: {error}", kind.name());
                missing.push(kind);
            }
        }
    }
    plans.iter_mut().for_each(|plan| plan.systems.retain(|system| !missing.contains(&system.kind)));
    Ok((plans, servers))
}

/// Every load, in so many rounds, each system in turns. Nothing if a signal came.
fn rounds(
    args: &Args,
    plan: &Plan,
    servers: &[Server],
    folder: &Folder,
    signalled: &watch::Receiver<bool>,
) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    for load in &plan.loads {
        for round in 1..=args.rounds {
            // Each begins a round in its turn: who comes first may find another disk.
            let mut systems = plan.systems.clone();
            let first = usize::from(round - 1) % systems.len().max(1);
            systems.rotate_left(first);
            for system in systems {
                let server = servers.iter().find(|server| server.kind == system.kind)?;
                let run = one(args, system, server, *load, round, folder, signalled)?;
                told(args, &run);
                runs.push(run);
            }
        }
    }
    Some(runs)
}

fn told(args: &Args, run: &Run) {
    let Run { system, load: Load { payload, in_flight }, round, figures, .. } = run;
    let what = format!("round {round}/{}, {payload} B, {in_flight} in flight, {system}", args.rounds);
    match &run.error {
        Some(error) => eprintln!("{what}: FAILED: {error}"),
        None => eprintln!("{what}: {} appends/s", stats::grouped(figures.appends_per_s)),
    }
    if args.json {
        println!("{}", serde_json::to_string(run).unwrap_or_default());
    } else if args.csv {
        println!("{}", run.csv());
    }
}

/// One run. Nothing if a signal came.
fn one(
    args: &Args,
    system: System,
    server: &Server,
    load: Load,
    round: u16,
    folder: &Folder,
    signalled: &watch::Receiver<bool>,
) -> Option<Run> {
    let mut run = Run { system, load, round, error: None, figures: Figures::default(), disk: None };
    let disk = disk::measure(folder.path()).map(|disk| run.disk = Some(disk));
    let measured = disk.and_then(|()| {
        let mut signalled = signalled.clone();
        let runtime = systems::runtime(args.connections.client_threads)?;
        let measured = runtime.block_on(async {
            tokio::select! {
                measured = measure(args, system, server, load, folder) => Some(measured),
                _ = signalled.wait_for(|signalled| *signalled) => None,
            }
        });
        // What a client left behind must not outlive its servers for long.
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(measured)
    });
    match measured {
        Ok(None) => return None,
        Ok(Some(Ok(figures))) => run.figures = figures,
        Ok(Some(Err(error))) | Err(error) => run.error = Some(error),
    }
    Some(run)
}

async fn measure(
    args: &Args,
    system: System,
    server: &Server,
    load: Load,
    folder: &Folder,
) -> Result<Figures, String> {
    let mut cluster = systems::start(system, server, args.connections, folder.path().join("run"))?;
    systems::answers(system, &mut cluster).await?;
    let gauge = Gauge::new(load);
    let window = gauge.window(cluster.pids(), args.warmup, args.duration);
    let driven = systems::drive(system, &cluster, load, args.connections, &gauge);
    let driven = tokio::time::timeout(args.warmup + args.duration + MORE, driven).await;
    if !matches!(driven, Ok(Ok(()))) {
        gauge.give_up();
    }
    driven.map_err(|_| format!("appends are still in flight {} s after the end", MORE.as_secs()))??;
    let window = window.await.map_err(|_| "the window was not measured".to_owned())??;
    cluster.alive()?;
    if window.appends == 0 {
        return Err("nothing was acknowledged in time".to_owned());
    }
    Ok(Figures::new(load, &window, gauge.quantile(0.5), gauge.quantile(0.99)))
}

/// Turns true once somebody wants this to end.
fn signals() -> Result<watch::Receiver<bool>, String> {
    let (to, signalled) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let of = |kind| signal(kind).map_err(|error| format!("cannot listen to signals: {error}"));
            let all = (of(SignalKind::interrupt()), of(SignalKind::terminate()), of(SignalKind::hangup()));
            let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = all else {
                let _ = ready.send(Err("cannot listen to signals".to_owned()));
                return;
            };
            let _ = ready.send(Ok(()));
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
                _ = hangup.recv() => (),
            }
            let _ = to.send(true);
            // Nobody needs to say so twice, and the sender must stay.
            std::future::pending::<()>().await;
        });
    });
    is_ready.recv().map_err(|_| "cannot listen to signals".to_owned())??;
    Ok(signalled)
}

fn summary(
    args: &Args,
    plans: &[Plan],
    done: &[Vec<Run>],
    servers: &[Server],
    cores: usize,
) -> serde_json::Value {
    let systems: Vec<System> = plans.iter().flat_map(|plan| plan.systems.clone()).collect();
    let acknowledgements: serde_json::Map<String, serde_json::Value> =
        systems.iter().map(|system| (system.to_string(), system.acknowledgement().into())).collect();
    let versions: serde_json::Map<String, serde_json::Value> =
        servers.iter().map(|server| (server.kind.name().to_owned(), server.version.clone().into())).collect();
    let medians: Vec<_> =
        plans.iter().zip(done).flat_map(|(plan, runs)| report::medians(plan, runs)).collect();
    let ratios: Vec<_> = plans.iter().zip(done).flat_map(|(plan, runs)| report::beside(plan, runs)).collect();
    serde_json::json!({"summary": {
        "rounds": args.rounds,
        "duration_s": args.duration.as_secs_f64(),
        "warmup_s": args.warmup.as_secs_f64(),
        "cores": cores,
        "versions": versions,
        "acknowledgements": acknowledgements,
        "medians": medians,
        "ratios": ratios,
    }})
}
