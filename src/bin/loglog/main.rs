//! `loglog`: the command line.
//!
//! Owns:   the list of commands and what is common to all: endpoints, runtime, the last line, the exit code.
//! Keeps:  data goes to standard output, words to standard error.
//! Never:  does more than call the client (or, offline, storage) and print.

mod actors;
mod admin;
mod append;
mod bench;
mod completions;
mod connect;
mod dev;
mod end;
mod exit;
mod fault;
mod input;
mod inspect;
mod leader;
mod members;
mod output;
mod progress;
mod read;
mod status;
mod table;
mod tail;
mod top;
mod trim;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use connect::Endpoints;
use exit::{EXIT_CODES, Outcome, Stop};

/// LogLog's command line: append to a log, read it, look after it.
#[derive(Parser)]
#[command(name = "loglog", version, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    endpoints: Endpoints,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Append lines, or a whole file, and print where each entry lies.
    Append(append::Args),
    /// Print the log, through its end as it is now.
    Read(read::Args),
    /// Print the last entries, and with -f those to come.
    Tail(tail::Args),
    /// Print where the log ends.
    End(end::Args),
    /// Print how a node is.
    Status(status::Args),
    /// Print what each actor of a node is doing.
    Actors(actors::Args),
    /// Watch what a cluster and its actors are doing, until q.
    Top(top::Args),
    /// Drop the log's beginning, and print where it starts then.
    Trim(trim::Args),
    /// See and change who keeps the log.
    #[command(subcommand)]
    Members(members::Members),
    /// Move the lead.
    #[command(subcommand)]
    Leader(leader::Leader),
    /// Describe a segment file or a data directory, without a node.
    Inspect(inspect::Args),
    /// Check data directories byte for byte, without a node.
    Verify(verify::Args),
    /// Run a whole cluster in this process, to try things out.
    Dev(dev::Args),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Make an actor of the node fail (needs debug.faults).
    #[command(hide = true)]
    Fault(fault::Args),
}

fn main() -> ExitCode {
    // Clap ends with 2 by itself where the command line is wrong, and with 0 after --help.
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) | Err(Stop::Unread) => ExitCode::SUCCESS,
        Err(Stop::Failure(exit, message)) => {
            eprintln!("loglog: {message}");
            ExitCode::from(exit.code())
        }
    }
}

fn run(cli: Cli) -> Outcome {
    let at = &cli.endpoints;
    match cli.command {
        Command::Append(args) => online(append::run(args, at)),
        Command::Read(args) => online(read::run(args, at)),
        Command::Tail(args) => online(tail::run(args, at)),
        Command::End(args) => online(end::run(args, at)),
        Command::Status(args) => online(status::run(args, at)),
        Command::Actors(args) => actors::run(&args),
        Command::Top(args) => online(top::run(args)),
        Command::Trim(args) => online(trim::run(args, at)),
        Command::Members(what) => online(members::run(what, at)),
        Command::Leader(what) => online(leader::run(what, at)),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Dev(args) => dev::run(&args),
        Command::Bench(bench) => online(bench::run(bench, at)),
        Command::Completions(args) => completions::run::<Cli>(&args),
        Command::Fault(args) => online(fault::run(args, at)),
    }
}

/// Runs a command that talks to nodes. One thread is enough: the work is the node's.
fn online(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::failed(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(command);
    // Whatever still waits in the background has nothing left to do; do not wait for it.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn endpoints_may_stand_before_or_behind_the_command() {
        for line in
            [&["loglog", "--endpoints", "a:1,b:2", "end"][..], &["loglog", "end", "--endpoints", "a:1,b:2"]]
        {
            assert_eq!(Cli::parse_from(line).endpoints.text(), "a:1,b:2");
        }
    }
}
