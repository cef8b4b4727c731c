//! What those hear who listen to a store.

#![cfg(feature = "metrics")]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

#[path = "support/faulty.rs"]
mod faulty;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use faulty::{Faulty, How};
use larder::wrap::{Instrumented, Recorder};
use larder::{Cache, Clock};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Writes down the fields of every event of this crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<BTreeMap<&'static str, String>>>>);

impl Log {
    /// The events named `name`, each with these fields.
    fn of(&self, name: &str, fields: &[&str]) -> Vec<Vec<String>> {
        let events = self.0.lock().unwrap();
        let named = |event: &&BTreeMap<_, String>| event["message"] == name;
        let pick = |event: &BTreeMap<_, String>| {
            let field = |field: &&str| event.get(*field).cloned().unwrap_or_default();
            fields.iter().map(field).collect()
        };
        events.iter().filter(named).map(pick).collect()
    }
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("larder")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        fields.insert("level", event.metadata().level().to_string());
        self.0.lock().unwrap().push(fields);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Whether a place in the code tells of itself is worked out when it is first met: not while another
/// test, which listens to nothing, meets it at the same moment.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn every_call_is_an_event_that_shows_no_key() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let inner = Faulty::new(&Clock::manual());
    let cache = Cache::new(Instrumented::new(inner.clone()));

    cache.set("secret@example.com", "v").await.unwrap();
    cache.get::<String>("secret@example.com").await.unwrap();
    cache
        .get_many::<String, _>(["secret@example.com", "missing"])
        .await
        .unwrap();
    cache.incr("missing", 1).await.unwrap_err();
    inner.go(How::Lost);
    cache.delete("secret@example.com").await.unwrap_err();

    let fields = ["level", "store", "verb", "keys", "outcome"];
    let expected = [
        ["TRACE", "faulty", "put", "1", "done"],
        ["TRACE", "faulty", "get", "1", "hit"],
        ["TRACE", "faulty", "get", "2", "some"],
        ["TRACE", "faulty", "add_to", "1", "miss"],
        ["DEBUG", "faulty", "delete", "1", "timeout"],
    ];
    assert_eq!(log.of("store_called", &fields), expected);
    for key in log.of("store_called", &["key"]).concat() {
        assert!(key.starts_with(":1:#") && key.len() == 12, "{key}");
    }
}

/// Keeps counters and how many values each histogram was given, under name and labels.
#[derive(Clone, Default)]
struct Meter(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Meter {
    fn cell(&self, key: &metrics::Key) -> Arc<AtomicU64> {
        let labels = key
            .labels()
            .map(|label| format!(" {}={}", label.key(), label.value()));
        let name = format!("{}{}", key.name(), labels.collect::<String>());
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    fn read(&self) -> Vec<(String, u64)> {
        let cells = self.0.lock().unwrap();
        let read =
            |(name, cell): (&String, &Arc<AtomicU64>)| (name.clone(), cell.load(Ordering::Relaxed));
        cells.iter().map(read).collect()
    }
}

struct Count(Arc<AtomicU64>);

impl metrics::HistogramFn for Count {
    fn record(&self, value: f64) {
        assert!((0.0..60.0).contains(&value), "seconds: {value}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl metrics::Recorder for Meter {
    fn describe_counter(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn describe_gauge(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn describe_histogram(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        metrics::Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::noop()
    }

    fn register_histogram(
        &self,
        key: &metrics::Key,
        _: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        metrics::Histogram::from_arc(Arc::new(Count(self.cell(key))))
    }
}

#[tokio::test]
async fn calls_and_outcomes_go_to_the_metrics_facade() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let meter = Meter::default();
    let _guard = metrics::set_default_local_recorder(&meter);
    let listener = Arc::new(Recorder::new());
    let store = Instrumented::new(Faulty::new(&Clock::manual()));
    let cache = Cache::builder(store)
        .listener(listener.clone())
        .build()
        .unwrap();

    cache.get::<String>("k").await.unwrap();
    cache.set("k", "v").await.unwrap();
    cache.get::<String>("k").await.unwrap();
    cache.get::<String>("k").await.unwrap();

    let expected = [
        ("larder_outcomes_total outcome=hit", 2),
        ("larder_outcomes_total outcome=miss-absent", 1),
        (
            "larder_store_calls_total store=faulty verb=get outcome=hit",
            2,
        ),
        (
            "larder_store_calls_total store=faulty verb=get outcome=miss",
            1,
        ),
        (
            "larder_store_calls_total store=faulty verb=put outcome=done",
            1,
        ),
        ("larder_store_seconds store=faulty verb=get", 3),
        ("larder_store_seconds store=faulty verb=put", 1),
    ];
    let expected: Vec<_> = expected
        .map(|(name, count)| (name.to_owned(), count))
        .into();
    assert_eq!(meter.read(), expected);
    let heard: Vec<_> = listener.counts().into_iter().collect();
    assert_eq!(heard, [("hit", 2), ("miss-absent", 1)]);
}
