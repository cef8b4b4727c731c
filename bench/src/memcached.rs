//! Values of 100 bytes, from a memcached server.

use std::future::Future;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder::store::{Memcached, Store, When};
use larder::{Entry, Key, Value};
use memcache::exp::{AsyncMemcache, Ttl};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::pairs::compare;
use crate::servers::{self, Outcome};

const KEYS: usize = 1_000;
const GETS: usize = 40_000;
const MINUTES: Duration = Duration::from_mins(5);

/// Thousands of gets a second by `callers` that each get one key after the other.
async fn rate<F>(callers: usize, get: impl Fn(usize, usize) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let gets: Vec<F> = (0..GETS / callers)
            .map(|number| get(caller, (number * 7919 + caller) % KEYS))
            .collect();
        tasks.spawn(async move {
            for get in gets {
                get.await;
            }
        });
    }
    tasks.join_all().await;
    let count = u32::try_from(GETS).expect("a few thousands");
    f64::from(count) / began.elapsed().as_secs_f64() / 1e3
}

/// `get` through `dyn Store` against the clients of others, by as many callers at the same time.
///
/// Who takes `&mut self` to get has a connection for each caller.
pub(crate) fn gets() -> Outcome {
    let (_server, url) = servers::memcached()?;
    let address = url.trim_start_matches("memcached://").to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    for callers in [1, 16, 64] {
        let peers = runtime
            .block_on(Peers::connect(&url, &address, callers))
            .map_err(|error| format!("{url}: {error}"))?;
        let ours = || {
            runtime.block_on(rate(callers, |_, number| {
                let (store, keys) = (Arc::clone(&peers.larder), Arc::clone(&peers.keys));
                async move {
                    let found = store.get(std::slice::from_ref(&keys[number]), None).await;
                    assert!(black_box(found).expect("it answers").entries[0].is_some());
                }
            }))
        };
        let name = |peer: &str| format!("memcached get / {peer}, {callers} caller(s)");
        compare(&name("memcache::exp"), "k/s", ours, || {
            runtime.block_on(rate(callers, |_, number| {
                let (peer, keys) = (peers.memcache.clone(), Arc::clone(&peers.keys));
                async move {
                    let found = peer.get::<Vec<u8>>(keys[number].name()).await;
                    assert!(black_box(found).expect("it answers").is_some());
                }
            }))
        });
        compare(&name("async-memcached"), "k/s", ours, || {
            runtime.block_on(rate(callers, |caller, number| {
                let (peer, keys) = (Arc::clone(&peers.shopify[caller]), Arc::clone(&peers.keys));
                async move {
                    use async_memcached::AsciiProtocol as _;
                    let found = peer.lock().await.get(keys[number].name()).await;
                    assert!(black_box(found).expect("it answers").is_some());
                }
            }))
        });
        compare(&name("memcache-async"), "k/s", ours, || {
            runtime.block_on(rate(callers, |caller, number| {
                let (peer, keys) = (Arc::clone(&peers.plain[caller]), Arc::clone(&peers.keys));
                async move {
                    let found = peer.lock().await.get(keys[number].name()).await;
                    assert!(!black_box(found).expect("it answers").is_empty());
                }
            }))
        });
    }
    Ok(())
}

type Plain = memcache_async::ascii::Protocol<TcpStream>;

/// The clients, and the keys that are there.
struct Peers {
    keys: Arc<Vec<Key>>,
    larder: Arc<dyn Store>,
    memcache: AsyncMemcache,
    shopify: Vec<Arc<Mutex<async_memcached::Client>>>,
    plain: Vec<Arc<Mutex<Plain>>>,
}

impl Peers {
    async fn connect(
        url: &str,
        address: &str,
        callers: usize,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let larder = Memcached::connect(url).await?;
        let keys: Vec<Key> = (0..KEYS)
            .map(|number| Key::new(format!(":1:user:{number:08}:profile")))
            .collect();
        let deadline = larder.clock().now().plus(MINUTES);
        for key in &keys {
            let value = Value::Bytes(vec![b'x'; 100].into());
            let entry = Entry::new(larder.clock(), value).fresh_until(deadline);
            larder.put(key, entry, When::Always).await?;
        }
        let memcache = AsyncMemcache::connect([address.to_owned()]).await?;
        memcache.set("ping", "pong", Ttl::secs(60)).await?;
        let (mut shopify, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..callers {
            let client = async_memcached::Client::new(format!("tcp://{address}")).await?;
            shopify.push(Arc::new(Mutex::new(client)));
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            plain.push(Arc::new(Mutex::new(Plain::new(stream))));
        }
        Ok(Self {
            keys: Arc::new(keys),
            larder: Arc::new(larder),
            memcache,
            shopify,
            plain,
        })
    }
}
