//! `loglog-sim`: runs the simulator, prints what it came to, replays and shrinks a seed that fails.
//!
//! Exit codes: 0 no violation, 1 a violation, or too little that counts, 2 bad usage.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use clap::Parser;
use loglog_integration_tests::sim::queue::SECOND;
use loglog_integration_tests::sim::{Counts, Fault, HOUR, Options, Report, run};

/// Runs clusters of simulated nodes, made of the production consensus and storage, through faults drawn from seeds.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one behind the other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Simulated time of each seed, seconds.
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Nodes at the start; drawn from the seed, 3 to 5, if not given.
    #[arg(long)]
    nodes: Option<u32>,
    /// Sets a fault's strength, such as loss=0.3; 0 turns it off.
    #[arg(long, value_parser = dial, value_delimiter = ',')]
    dial: Vec<(Fault, f64)>,
    /// Fails if fewer hours than these count.
    #[arg(long, default_value_t = 0.0)]
    at_least: f64,
    /// Prints every event.
    #[arg(long)]
    transcript: bool,
    /// Looks for the least that still fails, if the seed does.
    #[arg(long)]
    shrink: bool,
    /// Seeds run side by side.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn dial(text: &str) -> Result<(Fault, f64), String> {
    let names = || Fault::ALL.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", ");
    let (name, strength) = text.split_once('=').ok_or("a dial is NAME=STRENGTH")?;
    let fault = Fault::ALL.iter().find(|fault| fault.name() == name);
    let fault = fault.ok_or_else(|| format!("no fault is called {name}; there are: {}", names()))?;
    match strength.parse() {
        Ok(strength) if (0.0..=1.0).contains(&strength) => Ok((*fault, strength)),
        _ => Err(format!("a strength lies between 0 and 1, {strength} does not")),
    }
}

/// The command that runs this again.
fn command(options: &Options) -> String {
    let mut words = format!("loglog-sim --seed {} --seconds {}", options.seed, options.time.div_ceil(SECOND));
    if let Some(nodes) = options.nodes {
        words += &format!(" --nodes {nodes}");
    }
    let dials: Vec<String> = options.dials.iter().map(|(fault, to)| format!("{fault}={to}")).collect();
    if !dials.is_empty() {
        words += &format!(" --dial {}", dials.join(","));
    }
    words
}

/// What all seeds came to.
#[derive(Default)]
struct Total {
    counts: Counts,
    hours: f64,
    counted: f64,
    operations: u64,
    acknowledged: u64,
    leaders: u64,
    installs: u64,
    fetched: u64,
    mended: u64,
    heal_max: u64,
    violations: u64,
    events: u64,
}

impl Total {
    fn add(&mut self, report: &Report) {
        let hours = report.time as f64 / HOUR as f64;
        self.counts.merge(&report.counts);
        self.hours += hours;
        if report.is_counted() {
            self.counted += hours;
        }
        self.operations += report.operations;
        self.acknowledged += report.acknowledged;
        self.leaders += report.leaders;
        self.installs += report.installs;
        self.fetched += report.fetched;
        self.mended += report.mended;
        self.heal_max = self.heal_max.max(report.heal_max);
        self.events += report.events;
        self.violations += u64::from(report.violation.is_some());
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A panic is a violation like any other: it is told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let options = |seed| Options {
        seed,
        nodes: args.nodes,
        time: args.seconds * SECOND,
        dials: args.dial.clone(),
        transcript: args.transcript,
    };
    let (next, stop, total) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Total::default()));
    let began = std::time::Instant::now();
    thread::scope(|scope| {
        for _ in 0..args.threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= args.seeds {
                        return;
                    }
                    let options = options(args.seed + number);
                    let report = run(&options);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    total.add(&report);
                    tell(&options, &report);
                    if report.violation.is_some() {
                        stop.store(true, Ordering::Relaxed);
                        if args.shrink {
                            shrink(options);
                        }
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "\n{:.2} cluster-hours, {:.2} of them counted (10,000 operations and 20 strokes each), {} violations, in {:.1} s",
        total.hours,
        total.counted,
        total.violations,
        began.elapsed().as_secs_f64()
    );
    println!(
        "operations {}, acknowledged {}, terms with a leader {}, snapshots installed {}, payloads fetched {}, logs mended {}, longest healing {:.1} s, events {}",
        total.operations,
        total.acknowledged,
        total.leaders,
        total.installs,
        total.fetched,
        total.mended,
        total.heal_max as f64 / SECOND as f64,
        total.events
    );
    println!("faults that took effect:");
    for (fault, count) in &total.counts.0 {
        println!("  {:20} {count}", fault.name());
    }
    let is_enough = total.counted >= args.at_least;
    if !is_enough {
        println!("that is too little: at least {} hours are to count", args.at_least);
    }
    ExitCode::from(u8::from(total.violations > 0 || !is_enough))
}

fn tell(options: &Options, report: &Report) {
    for line in &report.transcript {
        println!("{line}");
    }
    println!(
        "seed {:>6}: {} nodes, {:>6} operations, {:>5} acknowledged, {:>3} leaders, {:>4} strokes, healed in {:>4.1} s at most, transcript {:016x}{}",
        options.seed,
        report.nodes,
        report.operations,
        report.acknowledged,
        report.leaders,
        report.counts.strokes(),
        report.heal_max as f64 / SECOND as f64,
        report.hash,
        if report.is_counted() { "" } else { " (not counted)" },
    );
    if let Some(violation) = &report.violation {
        println!("VIOLATION, seed {}: {violation}\n  again: {}", options.seed, command(options));
    }
}

/// Leaves out what is not needed to fail: faults, time, nodes.
fn shrink(mut options: Options) {
    options.transcript = false;
    let fails = |options: &Options| run(options).violation;
    let Some(_) = fails(&options) else { return };
    for fault in Fault::ALL {
        let mut less = options.clone();
        less.dials.retain(|(other, _)| other != fault);
        less.dials.push((*fault, 0.0));
        if fails(&less).is_some() {
            println!("  fails without {fault}, too");
            options = less;
        }
    }
    while options.time > 2 * SECOND {
        let less = Options { time: options.time / 2, ..options.clone() };
        if fails(&less).is_none() {
            break;
        }
        options = less;
    }
    let left = Fault::ALL.iter().filter(|fault| !options.dials.contains(&(**fault, 0.0)));
    println!("  what is left: {}", left.map(|fault| fault.name()).collect::<Vec<_>>().join(", "));
    let violation = fails(&options).unwrap_or_default();
    println!("  {violation}\n  again: {}", command(&options));
}
