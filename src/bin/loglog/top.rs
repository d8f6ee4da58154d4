//! `loglog top`: what a cluster and its actors are doing, again every second.
//!
//!     node's admin endpoint ──a sample a second──► View ──lines──► Screen
//!
//! Owns:   when nodes are asked and when the picture is drawn.
//! Keeps:  a node that answers late, or not at all, holds up nobody else.

mod frame;
mod sample;
mod screen;
mod spark;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::exit::{Exit, Outcome, Stop};
use crate::output::Output;
use sample::Sample;
use screen::{Key, Screen};
use view::View;

/// Between two samples of a node.
const INTERVAL: Duration = Duration::from_secs(1);

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the nodes' admin endpoints are (their listen.admin).
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        env = "LOGLOG_ADMIN",
        default_value = "127.0.0.1:19196",
        value_delimiter = ','
    )]
    admin: Vec<String>,

    /// Print it once, and end. So it is where standard output is no terminal.
    #[arg(long)]
    once: bool,

    /// Print one sample of each node as JSON, and end.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Outcome {
    if args.json {
        return print_json(&args.admin).await;
    }
    if args.once || !std::io::stdout().is_terminal() {
        return print_once(&args.admin).await;
    }
    watch(args.admin).await
}

/// All nodes, each asked at the same time.
async fn ask_all(admins: &[String]) -> Vec<Result<Sample, String>> {
    futures_util::future::join_all(admins.iter().map(|admin| sample::ask(admin.clone()))).await
}

async fn print_json(admins: &[String]) -> Outcome {
    let answers = ask_all(admins).await;
    let nodes: Vec<_> = admins
        .iter()
        .zip(&answers)
        .map(|(admin, answer)| match answer {
            Ok(sample) => json!({ "admin": admin, "answers": sample.raw, "error": null }),
            Err(error) => json!({ "admin": admin, "answers": null, "error": error }),
        })
        .collect();
    let mut output = Output::new();
    output.json(&json!({ "nodes": nodes }))?;
    output.flush()?;
    some_answer(&answers)
}

/// Two looks, since a rate takes two.
async fn print_once(admins: &[String]) -> Outcome {
    let mut view = View::new(admins);
    let first = ask_all(admins).await;
    some_answer(&first)?;
    for (at, answer) in first.into_iter().enumerate() {
        view.take(at, answer);
    }
    sleep(INTERVAL).await;
    for (at, answer) in ask_all(admins).await.into_iter().enumerate() {
        view.take(at, answer);
    }
    let mut output = Output::new();
    for line in frame::draw(&view, None) {
        output.line(line.plain().trim_end())?;
    }
    output.flush()
}

/// That nobody answers is no picture.
fn some_answer(answers: &[Result<Sample, String>]) -> Outcome {
    match answers.iter().find_map(|answer| answer.as_ref().err()) {
        Some(error) if answers.iter().all(Result::is_err) => Err(Stop::new(Exit::Unavailable, error.clone())),
        _ => Ok(()),
    }
}

async fn watch(admins: Vec<String>) -> Outcome {
    let mut view = View::new(&admins);
    let (tell, mut told) = mpsc::channel(admins.len() * 2);
    for (at, admin) in admins.into_iter().enumerate() {
        let tell = tell.clone();
        tokio::spawn(async move {
            let mut ticks = interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if tell.send((at, sample::ask(admin.clone()).await)).await.is_err() {
                    break;
                }
            }
        });
    }
    let cannot = |error: std::io::Error| Stop::failed(format!("cannot watch for signals: {error}"));
    let mut resized = signal(SignalKind::window_change()).map_err(cannot)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut redraw = interval(INTERVAL);
    let mut screen = Screen::enter()?;
    let mut keys = screen::keys();
    loop {
        tokio::select! {
            Some((at, answer)) = told.recv() => {
                view.take(at, answer);
                // What comes at about the same time is drawn at once.
                while let Ok((at, answer)) = told.try_recv() {
                    view.take(at, answer);
                }
            }
            Some(key) = keys.recv() => match key {
                Key::Quit => break,
                Key::Next => view.next(),
                Key::Previous => view.previous(),
                Key::Other => continue,
            },
            _ = resized.recv() => {}
            _ = redraw.tick() => {}
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
        }
        let size = screen.size();
        screen.show(&frame::draw(&view, Some(size)), size)?;
    }
    Ok(())
}
