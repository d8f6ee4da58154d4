//! Frame: the picture, as lines.
//!
//! Owns:   what stands where, and what has which colour. Colours only repeat what the words say.
//! Never:  knows a terminal.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use loglog::units::about_bytes;

use super::sample::{Actor, Cluster, Log, Member, Sample, Second};
use super::screen::Size;
use super::spark::spark;
use super::view::{Known, View};
use crate::status::uptime;
use crate::table::grouped;

/// Where nothing says how wide it may be.
const WIDTH: usize = 110;
/// The last minute, or what there is room for.
const SPARK_MAX: usize = 60;

/// How a part of a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    Strong,
    Soft,
    Accent,
    Fair,
    Bad,
}

/// One line.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Vec<(Look, String)>);

impl Line {
    fn of(look: Look, text: impl Into<String>) -> Self {
        Self(vec![(look, text.into())])
    }

    fn and(mut self, look: Look, text: impl Into<String>) -> Self {
        self.0.push((look, text.into()));
        self
    }

    /// Its words.
    pub(super) fn plain(&self) -> String {
        self.0.iter().flat_map(|(_, text)| text.chars()).filter(|c| !c.is_control()).collect()
    }

    /// For a terminal of so many columns.
    pub(super) fn ansi(&self, columns: usize, has_colours: bool) -> String {
        let mut left = columns;
        let mut out = String::new();
        for (look, text) in &self.0 {
            // A panic's text may hold anything; none of it may move the cursor.
            let part: String = text.chars().filter(|c| !c.is_control()).take(left).collect();
            left -= part.chars().count();
            let code = match look {
                Look::Plain => "",
                Look::Strong => "\x1b[1m",
                Look::Soft => "\x1b[2m",
                Look::Accent => "\x1b[36m",
                Look::Fair => "\x1b[33m",
                Look::Bad => "\x1b[1;31m",
            };
            if has_colours && !code.is_empty() {
                out.push_str(&format!("{code}{part}\x1b[0m"));
            } else {
                out.push_str(&part);
            }
        }
        out
    }
}

/// All of it; of the actors as many as there are rows, or all.
pub(super) fn draw(view: &View, size: Option<Size>) -> Vec<Line> {
    let columns = size.map_or(WIDTH, |size| size.columns);
    let mut lines = vec![title(view, size.is_some())];
    lines.push(Line::default());
    lines.extend(cluster(view));
    lines.push(Line::default());
    let node = view.chosen();
    match &node.sample {
        Some(sample) => {
            let first = lines.len();
            if !sample.ready.ready && node.error.is_none() {
                let why = sample.ready.why.as_deref().unwrap_or("it does not say why");
                lines.push(Line::of(Look::Fair, format!("node {} is not ready: {why}", sample.actors.node)));
            }
            lines.extend(history(sample, columns));
            lines.push(Line::default());
            lines.extend(log(sample, columns));
            lines.push(Line::default());
            let rows = size.map_or(usize::MAX, |size| size.rows.saturating_sub(lines.len()));
            lines.extend(actors(node, sample, rows));
            if node.error.is_some() {
                // Old news does not look like new.
                for line in &mut lines[first..] {
                    *line = Line::of(Look::Soft, line.plain());
                }
            }
        }
        None => lines.push(Line::of(
            Look::Bad,
            node.error.clone().unwrap_or_else(|| format!("asking {}", node.admin)),
        )),
    }
    lines
}

fn title(view: &View, is_live: bool) -> Line {
    let clusters = view.nodes().iter().filter_map(|node| node.sample.as_ref()?.cluster.as_ref());
    let cluster = clusters.map(|cluster| cluster.cluster.as_str()).next().unwrap_or("not known yet");
    let line = Line::of(Look::Strong, "LogLog").and(Look::Soft, format!("  cluster {cluster}"));
    match (is_live, view.nodes().len()) {
        (false, _) => line,
        (true, 1) => line.and(Look::Soft, "    q quits"),
        (true, _) => line.and(Look::Soft, "    q quits, Tab looks at the next node"),
    }
}

/// A row a member, from whoever knows it best; a row for each endpoint that does not answer.
fn cluster(view: &View) -> Vec<Line> {
    let heading = format!(
        "{:<6}{:<11}{:>6}  {:>18}  {:>18}  {:>10}  {:>12}  {}",
        "node", "role", "term", "committed", "durable", "lag", "up", "clients"
    );
    let mut lines = vec![Line::of(Look::Soft, heading)];
    let answering = || view.nodes().iter().filter(|node| node.error.is_none());
    let told: BTreeMap<u32, &Cluster> = answering()
        .filter_map(|node| node.sample.as_ref())
        .filter_map(|sample| Some((sample.actors.node, sample.cluster.as_ref()?)))
        .collect();
    // The leader knows how far the others are.
    let best = told.values().max_by_key(|cluster| (cluster.role == "leader", cluster.term));
    for member in best.iter().flat_map(|cluster| &cluster.members) {
        lines.push(member_line(member, told.get(&member.node).copied(), view));
    }
    for node in view.nodes() {
        if let Some(error) = &node.error {
            let name = node
                .sample
                .as_ref()
                .map_or(node.admin.clone(), |sample| format!("node {}", sample.actors.node));
            lines.push(Line::of(Look::Bad, format!("{name} does not answer: {error}")));
        }
    }
    lines
}

fn member_line(member: &Member, told: Option<&Cluster>, view: &View) -> Line {
    let unknown = || "–".to_owned();
    let role = match told {
        Some(cluster) => cluster.role.clone(),
        None if member.leads => "leader".to_owned(),
        None if member.voter => "voter".to_owned(),
        None => "learner".to_owned(),
    };
    let lag = member.lag_bytes.map_or_else(unknown, about_bytes);
    let text = format!(
        "{:<11}{:>6}  {:>18}  {:>18}  {:>10}  {:>12}  {}",
        role,
        told.map_or_else(unknown, |it| it.term.to_string()),
        told.map_or_else(unknown, |it| grouped(it.committed)),
        told.map(|it| it.durable).or(member.durable).map_or_else(unknown, grouped),
        lag,
        told.map_or_else(unknown, |it| uptime(it.uptime_s)),
        member.client_address,
    );
    let is_chosen = view.chosen().sample.as_ref().is_some_and(|sample| sample.actors.node == member.node);
    let mark = if is_chosen && view.nodes().len() > 1 { "›" } else { " " };
    let look = if member.leads { Look::Strong } else { Look::Plain };
    let line = Line::of(Look::Accent, mark).and(look, format!("{:<5}{text}", member.node));
    match member.connected {
        Some(false) => line.and(Look::Bad, "  no connection"),
        _ => line,
    }
}

fn history(sample: &Sample, columns: usize) -> Vec<Line> {
    let history = &sample.history;
    let seconds = history.interval_ms.max(1) as f64 / 1000.0;
    type Of = fn(&Second, f64) -> Option<f64>;
    type Show = fn(f64) -> String;
    let rows: [(&str, Of, Show); 3] = [
        (
            "appends",
            |it, seconds| Some(it.appends as f64 / seconds),
            |value| format!("{}/s", grouped(whole(value))),
        ),
        (
            "bytes",
            |it, seconds| Some(it.append_bytes as f64 / seconds),
            |value| format!("{}/s", about_bytes(whole(value))),
        ),
        (
            "sync p99",
            |it, _| it.sync_p99_us.filter(|_| it.sync_count > 0).map(|us| us as f64),
            |value| micros(whole(value)),
        ),
    ];
    let width = columns.saturating_sub(48).clamp(10, SPARK_MAX);
    let row = |(name, of, show): (&str, Of, Show)| {
        let values: Vec<Option<f64>> = history.samples.iter().map(|it| of(it, seconds)).collect();
        let now = values.last().copied().flatten().map_or_else(|| "–".to_owned(), show);
        let most = values.iter().flatten().copied().reduce(f64::max).map_or_else(|| "–".to_owned(), show);
        Line::of(Look::Soft, format!("{name:<10}"))
            .and(Look::Strong, format!("{now:>13}  "))
            .and(Look::Accent, spark(&values, width))
            .and(Look::Soft, format!("  most {most}"))
    };
    rows.into_iter().map(row).collect()
}

fn log(sample: &Sample, columns: usize) -> Vec<Line> {
    let Some(log) = &sample.log else {
        return vec![Line::of(Look::Fair, "the log is not open: it is being recovered")];
    };
    let many = if log.segments.len() == 1 { "segment" } else { "segments" };
    let text = format!(
        "{} to {}, {} in {} {many}, {} synced ahead, ",
        grouped(log.start),
        grouped(log.committed),
        about_bytes(log.committed.saturating_sub(log.start)),
        grouped(log.segments.len() as u64),
        about_bytes(log.durable.saturating_sub(log.committed)),
    );
    let line = Line::of(Look::Soft, format!("{:<10}", "log")).and(Look::Plain, text);
    let line = if log.disk_full {
        line.and(Look::Bad, "disk full: appends are refused")
    } else {
        line.and(Look::Plain, format!("{} free", about_bytes(log.disk_free)))
    };
    let width = columns.saturating_sub(12).clamp(10, WIDTH - 12);
    vec![line, Line::of(Look::Plain, " ".repeat(10)).and(Look::Accent, strip(log, width))]
}

/// The segments to scale: light ones before the start, full ones, a mark where one begins.
fn strip(log: &Log, width: usize) -> String {
    let Some((first, last)) = log.segments.first().zip(log.segments.last()) else {
        return String::new();
    };
    let bytes = u128::from((last.end.saturating_sub(first.base)).max(1));
    let cell = |offset: u64| {
        usize::try_from(u128::from(offset.saturating_sub(first.base)) * width as u128 / bytes)
            .unwrap_or(width)
    };
    let mut cells = vec!['█'; width];
    // A mark between each two is no picture any more where there are too many.
    if log.segments.len() * 3 < width {
        for segment in &log.segments[1..] {
            cells[cell(segment.base).min(width - 1)] = '▊';
        }
    }
    for cell in cells.iter_mut().take(cell(log.start)) {
        *cell = '░';
    }
    cells.into_iter().collect()
}

/// One line of the actors' table: an actor, or all connections together.
struct Row<'a> {
    name: String,
    worst: &'a Actor,
    mailbox: u64,
    oldest_wait_ms: u64,
    rate: Option<f64>,
    restarts: u64,
    stalls: u64,
}

fn actors(node: &Known, sample: &Sample, rows_max: usize) -> Vec<Line> {
    let all = &sample.actors.actors;
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut crowds: BTreeMap<&str, Vec<&Actor>> = BTreeMap::new();
    for actor in all {
        match actor.kind.as_str() {
            "Connection" | "PeerConnection" => crowds.entry(&actor.kind).or_default().push(actor),
            // They are no actors: nobody writes to them.
            "Node" | "Group" => {}
            _ => rows.extend(row(node, actor.name.clone(), &[actor])),
        }
    }
    for (kind, members) in crowds {
        let name = if kind == "Connection" { "connections" } else { "peer connections" };
        rows.extend(row(node, format!("{name} ×{}", members.len()), &members));
    }
    // What is not well comes first, then who has most to do.
    rows.sort_by(|a, b| {
        let key = |row: &Row<'_>| Reverse(is_ill(row.worst));
        key(a)
            .cmp(&key(b))
            .then(b.rate.unwrap_or(0.0).total_cmp(&a.rate.unwrap_or(0.0)))
            .then(a.name.cmp(&b.name))
    });
    let title = format!("actors of node {}", sample.actors.node);
    let heading = format!(
        "{title:<26}{:<18}{:>10}{:>10}{:>14}{:>10}{:>8}  {}",
        "state", "waiting", "oldest", "messages/s", "restarts", "stalls", "last panic"
    );
    let mut lines = vec![Line::of(Look::Soft, heading)];
    lines.extend(rows.iter().map(|row| actor_line(row, sample.actors.unix_ms)));
    if lines.len() > rows_max && rows_max > 1 {
        let hidden = lines.len() - (rows_max - 1);
        lines.truncate(rows_max - 1);
        lines.push(Line::of(Look::Soft, format!("and {hidden} more")));
    }
    lines
}

fn row<'a>(node: &Known, name: String, members: &[&'a Actor]) -> Option<Row<'a>> {
    let worst = *members.iter().find(|actor| is_ill(actor)).or(members.first())?;
    Some(Row {
        name,
        worst,
        mailbox: members.iter().map(|actor| actor.mailbox).sum(),
        oldest_wait_ms: members.iter().map(|actor| actor.oldest_wait_ms).max().unwrap_or(0),
        rate: members.iter().filter_map(|actor| node.rate(&actor.name)).reduce(|a, b| a + b),
        restarts: members.iter().map(|actor| actor.restarts).sum(),
        stalls: members.iter().map(|actor| actor.stalls).sum(),
    })
}

fn is_ill(actor: &Actor) -> bool {
    actor.stalled_ms.is_some() || matches!(actor.state.as_str(), "backoff" | "failed")
}

fn actor_line(row: &Row<'_>, now: u64) -> Line {
    let (state, look) = match (row.worst.stalled_ms, row.worst.state.as_str()) {
        (Some(ms), _) => (format!("stuck for {} s", ms / 1000), Look::Bad),
        (None, state @ "failed") => (state.to_owned(), Look::Bad),
        (None, state @ ("backoff" | "starting")) => (state.to_owned(), Look::Fair),
        (None, state) => (state.to_owned(), Look::Plain),
    };
    let oldest = match row.oldest_wait_ms {
        0 => "–".to_owned(),
        ms => micros(ms * 1000),
    };
    let rate = row.rate.map_or("–".to_owned(), |rate| match rate {
        rate if rate > 0.0 && rate < 10.0 => format!("{rate:.1}"),
        rate => grouped(whole(rate)),
    });
    let some = |count: u64| if count > 0 { Look::Fair } else { Look::Soft };
    let panic = row.worst.last_panic.as_ref().map_or(String::new(), |panic| {
        let first = panic.text.lines().next().unwrap_or_default();
        format!("  {} ago: {first}", uptime(now.saturating_sub(panic.unix_ms) / 1000))
    });
    Line::of(Look::Plain, format!("{:<26}", row.name))
        .and(look, format!("{state:<18}"))
        .and(Look::Plain, format!("{:>10}{oldest:>10}{rate:>14}", grouped(row.mailbox)))
        .and(some(row.restarts), format!("{:>10}", grouped(row.restarts)))
        .and(some(row.stalls), format!("{:>8}", grouped(row.stalls)))
        .and(Look::Soft, panic)
}

fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// A number that is none below zero and none too large: they are rates.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
#[path = "frame_test.rs"]
mod tests;
