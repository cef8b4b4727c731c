//! Runs a course: processes, each with its caches, over one server.

use std::collections::{BTreeMap, HashMap};
use std::future::IntoFuture as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::judge::{Ended, Fetched, Judge, On, Value};
use super::plan::{Act, End, FetchPlan, Kind, Near, Plan, Step};
use super::{Faults, Remote, Server, Setup};
use crate::store::{Memory, Store};
use crate::wrap::{Forgiving, Tiered};
use crate::{Cache, Loading, Policy};

impl Setup {
    fn near(&self, seed: u64) -> Option<Near> {
        let has_near = match self {
            Self::Plain(_) | Self::Own(_) => false,
            Self::Near(_) | Self::Watched(_) => true,
            Self::Forgiving => seed.is_multiple_of(2),
        };
        let is_watched = match self {
            Self::Watched(_) => true,
            _ => matches!(self, Self::Forgiving) && seed.is_multiple_of(4),
        };
        has_near.then(|| Near {
            is_watched,
            ..Near::draw(seed)
        })
    }

    fn store(&self, remote: &Remote, near: Option<Near>) -> Arc<dyn Store> {
        let far: Arc<dyn Store> = match self {
            Self::Own(wrap) => wrap(remote.clone()),
            Self::Forgiving => Arc::new(Forgiving::new(remote.clone())),
            _ => Arc::new(remote.clone()),
        };
        let Some(near) = near else { return far };
        let memory = Memory::builder().clock(remote.clock().clone()).build();
        let mut tiers = Tiered::new(memory, far).near_for(near.near_for);
        if near.numbers_only {
            tiers = tiers.numbers_only();
        }
        if near.is_watched {
            tiers = tiers.watched();
        }
        if let Self::Near(Some(rule)) | Self::Watched(Some(rule)) = self {
            tiers = tiers.break_rule(*rule);
        }
        Arc::new(tiers)
    }
}

/// A process: its way to the server, and a cache for each prefix.
#[derive(Debug)]
struct Process {
    /// Tells it from the one that it is started anew for.
    number: u64,
    remote: Remote,
    caches: [Cache; 2],
}

#[derive(Debug)]
struct World {
    plan: Plan,
    server: Server,
    judge: Judge,
    setup: Setup,
    near: Option<Near>,
    started: AtomicU64,
    processes: Mutex<Vec<Arc<Process>>>,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs the course of `seed`; returns the promise that it broke, if it broke one.
pub(super) fn run(seed: u64, setup: &Setup, trace: bool) -> Option<String> {
    let world = play(seed, setup, trace);
    world.judge.verdict(&world.plan)
}

/// Runs the course of `seed`; returns all that happened.
pub(super) fn record(seed: u64, setup: &Setup) -> String {
    play(seed, setup, false).judge.record()
}

fn play(seed: u64, setup: &Setup, trace: bool) -> Arc<World> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing");
    runtime.block_on(course(seed, setup, trace))
}

async fn course(seed: u64, setup: &Setup, trace: bool) -> Arc<World> {
    let near = setup.near(seed);
    let plan = Plan::draw(seed);
    let plan = match near {
        Some(near) if near.is_watched => plan.with_reads(seed).with_silence(seed),
        Some(_) => plan.with_reads(seed),
        None => plan,
    };
    let log: fn(&str) = |what| eprintln!("            {what}");
    let server = Server::with_log(seed, trace.then_some(log));
    let mut faults = plan.faults;
    if matches!(setup, Setup::Forgiving) && plan.kind == Kind::Faulty {
        // Those who forgive go on when nobody answers: what arrives afterwards is what they have to mind.
        faults.late = faults.late.max(100);
    }
    server.set_faults(faults);
    let judge = Judge::new(&plan, near, trace);
    judge.say(|| format!("{plan:#?} {near:?}"));
    let world = Arc::new(World {
        plan,
        server,
        judge,
        setup: setup.clone(),
        near,
        started: AtomicU64::new(0),
        processes: Mutex::new(Vec::new()),
    });
    let processes = (0..world.plan.processes).map(|_| world.start()).collect();
    *world.processes() = processes;
    let mut tasks = Vec::new();
    for step in &world.plan.steps {
        sleep(step.at.saturating_sub(world.judge.now())).await;
        tasks.extend(world.begin(step).await);
    }
    for task in tasks {
        // Those of a crashed process end as they do, but none by a panic of the engine's own.
        if task.await.is_err_and(|error| error.is_panic()) {
            world.judge.complain("a caller's task panicked".to_owned());
        }
    }
    world.finish().await;
    world
}

impl World {
    /// A process that has just begun.
    fn start(&self) -> Arc<Process> {
        let remote = self.server.connect();
        let store = self.setup.store(&remote, self.near);
        let cache = |prefix: &str| {
            let builder = Cache::builder(Arc::clone(&store)).prefix(prefix);
            match &self.setup {
                Setup::Plain(Some(rule)) => builder.break_rule(*rule).build(),
                _ => builder.build(),
            }
            .expect("the prefix is good")
        };
        let caches = [cache("a"), cache("b")];
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        Arc::new(Process {
            number,
            remote,
            caches,
        })
    }

    fn process(&self, number: usize) -> Arc<Process> {
        self.processes()[number].clone()
    }

    fn processes(&self) -> MutexGuard<'_, Vec<Arc<Process>>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn begin(self: &Arc<Self>, step: &Step) -> Option<tokio::task::JoinHandle<()>> {
        let process = self.process(step.process);
        let world = self.clone();
        let remote = process.remote.clone();
        let spawn = |work: Boxed<()>| Some(remote.spawn(work));
        match &step.act {
            Act::Fetch(plan) => {
                let plan = plan.clone();
                spawn(Box::pin(async move {
                    let fetch = fetch(world, process, plan.clone());
                    match plan.gives_up {
                        None => drop(fetch.await),
                        Some(after) => drop(timeout(after, fetch).await),
                    }
                }))
            }
            Act::FetchMany(keys, plan) => {
                let work = world.fetch_many(process, keys.clone(), plan.clone());
                spawn(Box::pin(work))
            }
            &Act::Get(key) => spawn(Box::pin(world.get(process, key))),
            &Act::Ticket {
                key,
                think,
                ttl,
                gives_up,
            } => spawn(Box::pin(world.ticket(process, key, think, ttl, gives_up))),
            &Act::Set { key, think, ttl } => spawn(Box::pin(world.set(process, key, think, ttl))),
            &Act::Delete(key) => spawn(Box::pin(world.delete(process, key))),
            &Act::Invalidate(row) => spawn(Box::pin(world.invalidate(process, row))),
            &Act::Clear(prefix) => spawn(Box::pin(world.clear(process, prefix))),
            act => {
                self.judge
                    .say(|| format!("process {}: {act:?}", step.process));
                match act {
                    Act::Sweep => self.server.sweep(),
                    Act::Forget => self.server.forget_numbers(),
                    Act::LoseNumbers => self.server.lose_numbers(),
                    Act::Snapshot => self.server.take_snapshot(),
                    Act::Restart => self.server.restart(),
                    Act::Restore => self.server.restore().await,
                    Act::Cut(lasts) => process.remote.cut_watch(*lasts),
                    Act::Overflow(lasts) => process.remote.overflow_watch(*lasts),
                    _ => {
                        process.remote.crash();
                        let next = self.start();
                        self.processes()[step.process] = next;
                    }
                }
                None
            }
        }
    }

    fn cache(&self, process: &Process, key: usize) -> Cache {
        process.caches[self.plan.keys[key].prefix].clone()
    }

    /// The tags of a key that carries them.
    fn tags(&self, key: usize) -> Vec<String> {
        let key = &self.plan.keys[key];
        let rows = key.rows.iter().filter(|_| key.is_tagged);
        rows.map(|row| format!("row:{row}")).collect()
    }

    async fn get(self: Arc<Self>, process: Arc<Process>, key: usize) {
        let call = self.judge.begin_call(key, "get", process.number);
        let cache = self.cache(&process, key);
        let got = cache.get::<Value>(name(key)).await;
        let got: Option<Fetched> = got.ok().flatten().map(Ok);
        self.judge.end_call(call, None, got.as_ref());
    }

    async fn ticket(
        self: Arc<Self>,
        process: Arc<Process>,
        key: usize,
        think: Duration,
        ttl: Duration,
        gives_up: bool,
    ) {
        let cache = self.cache(&process, key);
        let span = self.judge.begin_ticket(key);
        if let Ok(ticket) = cache.ticket(name(key)).await {
            sleep(think / 2).await;
            let keys = &self.plan.keys[key];
            let load = self.judge.begin_load(key, None, ttl);
            let readings = self.judge.read(&keys.rows, keys.is_tagged, None);
            sleep(think / 2).await;
            if !gives_up {
                let value = Value {
                    load: Some(load),
                    only_for: None,
                    of_many: false,
                    readings,
                };
                self.judge.end_load(load, Ended::Good);
                let set = ticket.set(&value).ttl(ttl).tags(self.tags(key)).await;
                self.judge
                    .say(|| format!("ticket for key {key} set: {set:?}"));
            }
            self.judge.end_load(load, Ended::Dropped);
        }
        self.judge.end_ticket(span);
    }

    async fn set(
        self: Arc<Self>,
        process: Arc<Process>,
        key: usize,
        think: Duration,
        ttl: Duration,
    ) {
        let set = self.judge.begin_set();
        let keys = &self.plan.keys[key];
        let readings = self.judge.read(&keys.rows, keys.is_tagged, Some(set));
        sleep(think).await;
        let promise = self.judge.begin();
        let value = Value {
            load: None,
            only_for: None,
            of_many: false,
            readings,
        };
        let cache = self.cache(&process, key);
        self.judge.say(|| format!("set {set} of key {key}"));
        let done = cache
            .set(name(key), &value)
            .ttl(ttl)
            .tags(self.tags(key))
            .await;
        if done.is_ok() {
            // What was loaded before is gone; what was set stays until the next act.
            self.judge.end_set(set);
            self.judge
                .acknowledge(promise, process.number, On::Key(key), &keys.rows);
        }
    }

    /// As a load that happens to read what another key is made of.
    async fn set_in_load(&self, process: &Process, key: usize, think: Duration, ttl: Duration) {
        let set = self.judge.begin_set();
        let keys = &self.plan.keys[key];
        let mut readings = self.judge.read(&keys.rows, keys.is_tagged, Some(set));
        for reading in &mut readings {
            reading.is_in_load = true;
        }
        sleep(think).await;
        let value = Value {
            load: None,
            only_for: None,
            of_many: false,
            readings,
        };
        let cache = self.cache(process, key);
        self.judge
            .say(|| format!("set {set} of key {key}, in a load"));
        let done = cache
            .set(name(key), &value)
            .ttl(ttl)
            .tags(self.tags(key))
            .await;
        if done.is_ok() {
            self.judge.end_set(set);
        }
    }

    async fn delete(self: Arc<Self>, process: Arc<Process>, key: usize) {
        let rows = &self.plan.keys[key].rows;
        self.judge.write(rows);
        let promise = self.judge.begin();
        if self.cache(&process, key).delete(name(key)).await.is_ok() {
            self.judge
                .acknowledge(promise, process.number, On::Key(key), rows);
        }
    }

    async fn invalidate(self: Arc<Self>, process: Arc<Process>, row: usize) {
        self.judge.write(&[row]);
        let promise = self.judge.begin();
        let tag = format!("row:{row}");
        if process.caches[0].invalidate([tag]).await.is_ok() {
            self.judge
                .acknowledge(promise, process.number, On::Tag, &[row]);
        }
    }

    async fn clear(self: Arc<Self>, process: Arc<Process>, prefix: usize) {
        let rows: Vec<usize> = (0..self.plan.rows).collect();
        self.judge.write(&rows);
        let promise = self.judge.begin();
        if process.caches[prefix].clear().await.is_ok() {
            let number = process.number;
            self.judge
                .acknowledge(promise.clone(), number, On::Tag, &rows);
            for (at, key) in self.plan.keys.iter().enumerate() {
                if key.prefix == prefix {
                    let (promise, on) = (promise.clone(), On::Key(at));
                    self.judge.acknowledge(promise, number, on, &key.rows);
                }
            }
        }
    }

    async fn fetch_many(
        self: Arc<Self>,
        process: Arc<Process>,
        keys: Vec<usize>,
        plan: Arc<FetchPlan>,
    ) {
        let Some(first) = keys.first() else { return };
        let number = process.number;
        let begin = |key: &usize| (*key, self.judge.begin_call(*key, "fetch_many", number));
        let calls: BTreeMap<usize, usize> = keys.iter().map(begin).collect();
        let cache = self.cache(&process, *first);
        let policy = policy(&plan);
        let load = {
            let (world, calls, plan) = (self.clone(), calls.clone(), plan.clone());
            move |names: Vec<String>| load_many(world.clone(), calls.clone(), plan.clone(), names)
        };
        // Its tags are known before, and are those of all keys.
        let tags = keys.iter().flat_map(|key| self.tags(*key));
        let fetch = cache.fetch_many(keys.iter().map(|key| name(*key)), load);
        let fetch = fetch.policy(policy.tags(tags)).into_future();
        let bound = 3 * self.bound(&plan);
        let Ok(fetched) = timeout(bound, fetch).await else {
            return self.judge.hung(calls[first]);
        };
        match fetched {
            Err(error) => {
                // Whose load it was that failed is not said; that one did, is known.
                for call in calls.values() {
                    self.judge.say(|| format!("call {call} returns {error:?}"));
                }
                self.judge.end_with_error(&calls, &error);
            }
            Ok(mut found) => {
                for (key, call) in calls {
                    let value: Option<Fetched> = found.remove(&name(key)).map(Ok);
                    self.judge.end_call(call, Some(&plan), value.as_ref());
                }
            }
        }
    }

    /// The longest a call may take.
    fn bound(&self, plan: &FetchPlan) -> Duration {
        // A load may be waited for, and then another one run.
        plan.wait + plan.time_limit + 30 * self.plan.faults.slowest() + Duration::from_secs(8)
    }

    /// When all is well again, every key is soon a hit, in every process.
    async fn finish(self: &Arc<Self>) {
        self.judge.say(|| "all is well".to_owned());
        self.server.set_faults(Faults::default());
        // Nobody listens meanwhile: to be told so often that nothing happens takes long.
        for process in self.processes().iter() {
            process.remote.cut_watch(Duration::from_secs(140));
        }
        // Tickets and loads in the background last no longer.
        sleep(Duration::from_secs(150)).await;
        for key in 0..self.plan.keys.len() {
            let plan = Arc::new(self.plan.last_fetch(key));
            let mut loads = 0;
            for round in 0..=self.plan.processes {
                let process = self.process(round % self.plan.processes);
                let fetched = fetch(self.clone(), process, plan.clone()).await;
                if !matches!(fetched, Some(Ok(_))) {
                    self.judge
                        .complain(format!("key {key} cannot be loaded: {fetched:?}"));
                }
                let before = std::mem::replace(&mut loads, self.judge.loads());
                if round > 0 && loads > before {
                    self.judge.complain(format!("key {key} is loaded forever"));
                }
            }
        }
    }
}

/// Fetches as planned; `None` if it took too long.
fn fetch(world: Arc<World>, process: Arc<Process>, plan: Arc<FetchPlan>) -> Boxed<Option<Fetched>> {
    Box::pin(async move {
        let key = plan.key;
        let call = world.judge.begin_call(key, "fetch", process.number);
        let cache = world.cache(&process, key);
        let bound = world.bound(&plan);
        let caller = Caller(world.clone(), call);
        let mut policy = policy(&plan);
        if !world.plan.keys[key].late_tags {
            policy = policy.tags(world.tags(key));
        }
        let load = {
            let (world, plan) = (world.clone(), plan.clone());
            move |loading| load(world, process, plan, call, loading)
        };
        let fetching: Boxed<Fetched> = if plan.is_here {
            Box::pin(async move { cache.fetch_here(name(key), load).policy(policy).await })
        } else {
            Box::pin(async move { cache.fetch_with(name(key), load).policy(policy).await })
        };
        let Ok(fetched) = timeout(bound, fetching).await else {
            world.judge.hung(call);
            return None;
        };
        world.judge.end_call(call, Some(&plan), Some(&fetched));
        drop(caller);
        Some(fetched)
    })
}

fn policy(plan: &FetchPlan) -> Policy {
    let policy = Policy::new()
        .ttl(plan.ttl)
        .grace(plan.grace)
        .stale_if_error(plan.if_error)
        .wait(plan.wait)
        .time_limit(plan.time_limit);
    match plan.soft_limit {
        Some(limit) => policy.soft_limit(limit),
        None => policy,
    }
}

/// Loads many keys, each with its rows.
async fn load_many(
    world: Arc<World>,
    calls: BTreeMap<usize, usize>,
    plan: Arc<FetchPlan>,
    names: Vec<String>,
) -> Result<HashMap<String, Value>, usize> {
    let keys = calls.iter().filter(|(key, _)| names.contains(&name(**key)));
    let mut keys: Vec<(usize, usize)> = keys.map(|(key, call)| (*key, *call)).collect();
    keys.sort_unstable();
    let begin = |(key, call): (usize, usize)| {
        let load = world.judge.begin_load(key, Some(call), plan.ttl);
        let world = world.clone();
        (key, Recorded { world, load })
    };
    let loads: Vec<(usize, Recorded)> = keys.into_iter().map(begin).collect();
    sleep(plan.before).await;
    let read = |(key, recorded): &(usize, Recorded)| {
        let rows = &world.plan.keys[*key];
        let value = Value {
            load: Some(recorded.load),
            only_for: None,
            of_many: true,
            readings: world.judge.read(&rows.rows, rows.is_tagged, None),
        };
        (name(*key), value)
    };
    let values = loads.iter().map(read).collect();
    sleep(plan.after).await;
    if plan.end == End::Never {
        std::future::pending::<()>().await;
    }
    for (_, recorded) in &loads {
        world.judge.end_load(recorded.load, plan.end.into());
    }
    match plan.end {
        End::Fails => Err(loads[0].1.load),
        End::Panics => panic!("planted"),
        _ => Ok(values),
    }
}

/// Notes when a caller goes away.
struct Caller(Arc<World>, usize);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.judge.drop_call(self.1);
    }
}

/// Ends a load's record however the load ends.
struct Recorded {
    world: Arc<World>,
    load: usize,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.world.judge.end_load(self.load, Ended::Dropped);
    }
}

async fn load(
    world: Arc<World>,
    process: Arc<Process>,
    plan: Arc<FetchPlan>,
    call: usize,
    loading: Loading,
) -> Result<Value, usize> {
    let load = world.judge.begin_load(plan.key, Some(call), plan.ttl);
    let recorded = Recorded { world, load };
    let world = &recorded.world;
    let key = &world.plan.keys[plan.key];
    let mut readings = Vec::new();
    sleep(plan.before).await;
    if !plan.inner_first {
        readings = world.judge.read(&key.rows, key.is_tagged, None);
    }
    if let Some(inner) = &plan.inner {
        let fetched = fetch(world.clone(), process.clone(), inner.clone()).await;
        let Some(Ok(value)) = fetched else {
            world.judge.end_load(load, Ended::Failed);
            return Err(load);
        };
        readings.extend(value.readings.into_iter().map(|mut reading| {
            reading.is_direct = false;
            reading
        }));
    }
    if plan.inner_first {
        readings.extend(world.judge.read(&key.rows, key.is_tagged, None));
    }
    if let Some(key) = plan.sets {
        world
            .set_in_load(&process, key, plan.after / 2, plan.ttl)
            .await;
    }
    sleep(plan.after).await;
    match plan.end {
        End::Never => std::future::pending().await,
        end => world.judge.end_load(load, end.into()),
    }
    if key.late_tags {
        for tag in world.tags(plan.key) {
            loading.tag(tag);
        }
    }
    match plan.end {
        End::Fails => return Err(load),
        End::Panics => panic!("planted"),
        End::Passes => loading.pass(),
        End::Good | End::Never => {}
    }
    Ok(Value {
        load: Some(load),
        only_for: (plan.end == End::Passes).then_some(call),
        of_many: false,
        readings,
    })
}

fn name(key: usize) -> String {
    format!("k{key}")
}
