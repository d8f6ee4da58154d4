//! Leases over a log in memory, in virtual time where nothing but the lease's own clock is to pass.

use std::sync::{Arc, Mutex};

use loglog_proto::Offset;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::*;
use crate::memory::MemoryLog;

const TIME: Duration = Duration::from_secs(5);

async fn contender(log: &MemoryLog) -> Lease<MemoryLog> {
    Lease::open(log.clone(), "leader", TIME).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_new_log_is_taken_at_once_and_held_for_its_time() {
    let log = MemoryLog::new();
    let mut lease = contender(&log).await;
    assert_eq!(lease.held(), None);
    let token = lease.acquire().await.unwrap();
    assert_eq!(lease.held(), Some(token));
    sleep(TIME - Duration::from_millis(1)).await;
    assert_eq!(lease.held(), Some(token));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(lease.held(), None);
    // Nobody else took it: it is renewed, under the same token.
    assert_eq!(lease.try_acquire().await.unwrap(), Some(token));
    assert_eq!(lease.held(), Some(token));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_takes_over_when_it_has_seen_nothing_for_the_time_and_no_sooner() {
    let log = MemoryLog::new();
    let (mut holder, mut waiter) = (contender(&log).await, contender(&log).await);
    let first = holder.acquire().await.unwrap();
    for _ in 0..5 {
        assert_eq!(waiter.try_acquire().await.unwrap(), None);
        sleep(TIME * 2 / 3).await;
        assert_eq!(holder.renew().await.unwrap(), Some(first));
    }
    let began = Instant::now();
    let second = waiter.acquire().await.unwrap();
    assert!(began.elapsed() >= TIME && began.elapsed() < TIME + TIME / 10, "{:?}", began.elapsed());
    assert!(second > first);
    assert_eq!(holder.held(), None);
    // The old holder learns it, and its release does nothing to the new grant.
    assert_eq!(holder.renew().await.unwrap(), None);
    holder.release().await.unwrap();
    assert_eq!(holder.try_acquire().await.unwrap(), None);
    assert_eq!(waiter.renew().await.unwrap(), Some(second));
}

#[tokio::test(start_paused = true)]
async fn a_release_lets_the_next_in_at_once() {
    let log = MemoryLog::new();
    let (mut holder, mut waiter) = (contender(&log).await, contender(&log).await);
    holder.acquire().await.unwrap();
    let began = Instant::now();
    let (token, released) = tokio::join!(waiter.acquire(), async {
        sleep(Duration::from_secs(1)).await;
        holder.release().await
    });
    released.unwrap();
    assert_eq!(waiter.held(), Some(token.unwrap()));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(holder.held(), None);
}

#[tokio::test(start_paused = true)]
async fn a_take_whose_outcome_is_unknown_is_found_again() {
    let log = MemoryLog::new();
    let (mut lease, mut other) = (contender(&log).await, contender(&log).await);
    let end = log.end(true).await.unwrap();
    log.pause();
    let error = lease.try_acquire().await.unwrap_err();
    assert!(matches!(&error, LeaseError::Append(error) if error.may_have_happened()), "{error}");
    assert_eq!(lease.held(), None);
    log.resume();
    // It came after all, at the one place where it could.
    assert_eq!(lease.try_acquire().await.unwrap(), Some(end));
    assert_eq!(other.try_acquire().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn others_entries_and_other_leases_do_not_matter() {
    let log = MemoryLog::new();
    let mut lease = contender(&log).await;
    let mut another = Lease::open(log.clone(), "another", TIME).await.unwrap();
    let token = lease.acquire().await.unwrap();
    another.acquire().await.unwrap();
    for _ in 0..20 {
        log.append("of somebody else").await.unwrap();
        assert_eq!(lease.renew().await.unwrap(), Some(token));
    }
    log.append(format!("lease release {token} leader's")).await.unwrap();
    assert_eq!(lease.try_acquire().await.unwrap(), Some(token));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_the_whole_log_waits_first() {
    let log = MemoryLog::new();
    log.append(vec![0; 1 << 20]).await.unwrap();
    // Nobody can tell that this is the first contender ever.
    let began = Instant::now();
    let mut holder = contender(&log).await;
    let token = holder.acquire().await.unwrap();
    assert!(began.elapsed() >= TIME);
    // Whoever comes during a grant does not see its beginning, but its renewals, and its release.
    let mut late = contender(&log).await;
    for _ in 0..4 {
        sleep(TIME / 2).await;
        assert_eq!(late.try_acquire().await.unwrap(), None);
        assert_eq!(holder.renew().await.unwrap(), Some(token));
    }
    holder.release().await.unwrap();
    assert!(late.try_acquire().await.unwrap().is_some());
}

#[tokio::test]
async fn the_log_must_answer() {
    let log = MemoryLog::new();
    let mut lease = contender(&log).await;
    log.append("x").await.unwrap();
    log.damage(Offset::new(60));
    assert!(matches!(lease.try_acquire().await, Err(LeaseError::Read(_))));
}

/// What only the holder may write to. It has seen a highest token, and takes no lower one.
#[derive(Debug, Default)]
struct Resource {
    highest: Offset,
    taken: u64,
    refused: u64,
}

impl Resource {
    fn write(&mut self, token: Offset) -> bool {
        let is_taken = token >= self.highest;
        self.highest = self.highest.max(token);
        *(if is_taken { &mut self.taken } else { &mut self.refused }) += 1;
        is_taken
    }
}

/// Contends until it has held the lease `rounds` times: works, renews, and then releases, dies as far as others can see, or is stopped for long and
/// goes on as if nothing had been.
async fn contend(
    log: MemoryLog,
    at: usize,
    rounds: u32,
    shared: Arc<Mutex<(Resource, Vec<Option<Offset>>)>>,
) {
    let mut random = SmallRng::seed_from_u64(at as u64);
    let mut lease = contender(&log).await;
    for _ in 0..rounds {
        let token = lease.acquire().await.unwrap();
        for _ in 0..random.random_range(1..5) {
            {
                let mut shared = shared.lock().unwrap();
                shared.1[at] = lease.held();
                // In virtual time nothing comes between this look and what follows.
                if lease.held() == Some(token) {
                    assert!(shared.0.write(token), "a holder by its clock has the highest token");
                    let holders = shared.1.iter().flatten().filter(|held| **held >= token).count();
                    assert_eq!(holders, 1, "{:?}", shared.1);
                }
            }
            sleep(TIME / random.random_range(3..20)).await;
            if lease.renew().await.unwrap() != Some(token) {
                break;
            }
        }
        shared.lock().unwrap().1[at] = None;
        match random.random_range(0..3) {
            0 => lease.release().await.unwrap(),
            1 => lease = contender(&log).await,
            _ => {
                sleep(TIME * 3).await;
                // It does not look again before it acts.
                shared.lock().unwrap().0.write(token);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn among_many_contenders_one_holds_it_at_a_time() {
    const CONTENDERS: usize = 12;
    const ROUNDS: u32 = 12;
    let (log, shared) = (MemoryLog::new(), Arc::default());
    *Mutex::lock(&shared).unwrap() = (Resource::default(), vec![None; CONTENDERS]);
    let contenders =
        (0..CONTENDERS).map(|at| tokio::spawn(contend(log.clone(), at, ROUNDS, Arc::clone(&shared))));
    for contender in contenders.collect::<Vec<_>>() {
        contender.await.unwrap();
    }
    let (resource, _) = &*shared.lock().unwrap();
    println!("{resource:?}");
    assert!(resource.taken > 100 && resource.refused > 10, "{resource:?}");
}

/// The same with threads and a real clock: what counts then is the order of tokens, and what the log says.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn among_many_threads_the_log_gives_each_token_once() {
    const CONTENDERS: usize = 8;
    let log = MemoryLog::new();
    let held: Arc<Mutex<Vec<(Offset, usize)>>> = Arc::default();
    let contend = |at: usize| {
        let (log, held) = (log.clone(), held.clone());
        async move {
            let mut lease = Lease::open(log, "leader", Duration::from_millis(20)).await.unwrap();
            for round in 0..5 {
                let token = lease.acquire().await.unwrap();
                held.lock().unwrap().push((token, at));
                if round % 2 == 0 {
                    lease.release().await.unwrap();
                }
            }
        }
    };
    let contenders: Vec<_> = (0..CONTENDERS).map(|at| tokio::spawn(contend(at))).collect();
    for contender in contenders {
        contender.await.unwrap();
    }
    // A contender that did not release may renew its grant: the same token to the same one.
    let mut held = held.lock().unwrap().clone();
    assert_eq!(held.len(), CONTENDERS * 5);
    held.sort_unstable();
    held.dedup();
    assert!(held.windows(2).all(|two| two[0].0 < two[1].0), "{held:?}");
}
