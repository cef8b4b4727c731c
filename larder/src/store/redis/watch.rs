//! Telling what changes on the server.
//!
//! A connection of its own, on which the server broadcasts the name of each key that changes
//! (`CLIENT TRACKING ON BCAST`): by a command or a script, by expiry, by eviction; a flush is one message
//! without names. What it does not tell is `SWAPDB`. It says the names of all databases without saying
//! whose they are, which costs copies and no more.
//!
//! *Why a pong proves something.* The server queues its broadcast before it sends the answers of the
//! commands that caused it, and one connection keeps its order. So when the pong to a ping comes, all
//! that was acknowledged to anybody before that ping was sent has been told. A server that is busy
//! with a script or loading answers with an error, which proves nothing and is not counted.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ErrorKind as Fault, PushInfo, PushKind, RedisError, Value, cmd,
};
use tokio::sync::mpsc;

use super::{Redis, restarts};
use crate::store::{Ears, News, Watch};
use crate::{Error, ErrorKind, Result};

/// Messages that wait to be heard; what does not fit is made up for by forgetting all.
const MOST_MESSAGES: usize = 10_000;

/// What the server has pushed.
struct Pushed {
    messages: mpsc::Receiver<PushInfo>,
    has_overflown: Arc<AtomicBool>,
}

#[async_trait]
impl Watch for Redis {
    async fn watch(&self, ears: &dyn Ears, pace: Duration) -> Result<Infallible> {
        let clock = &self.0.clock;
        let connecting = clock.timeout(self.0.connect_timeout, self.open_watch());
        let Some(opened) = connecting.await else {
            let does = format!("could not be watched within {:?}", self.0.connect_timeout);
            return Err(self.0.complaint(ErrorKind::Timeout, &does));
        };
        let (connection, mut pushed) = opened?;
        ears.hear(News::Everything).await;
        loop {
            let asked = clock.now();
            let ping = async {
                let mut connection = connection.clone();
                cmd("PING").query_async::<String>(&mut connection).await
            };
            let answer = clock.timeout(self.0.timeout, ping);
            match self.hear_until(answer, &mut pushed, ears).await? {
                // What came before the pong is in the queue before it.
                Some(Some(Ok(_))) => {
                    while let Ok(message) = pushed.messages.try_recv() {
                        self.tell(message, ears).await?;
                    }
                    if pushed.has_overflown.swap(false, Ordering::AcqRel) {
                        ears.hear(News::Everything).await;
                    }
                    ears.hear(News::Current(asked)).await;
                }
                // It lives, and says that it cannot answer now.
                Some(Some(Err(error))) if error.code() == Some("BUSY") => {}
                Some(Some(Err(error))) => return Err(self.0.server_error(&error)),
                // The pong that is given up is no answer to the next ping.
                None => continue,
                Some(None) => {
                    let does = format!("was not heard of for {:?}", self.0.timeout);
                    return Err(self.0.complaint(ErrorKind::Timeout, &does));
                }
            }
            self.hear_until(clock.sleep(pace), &mut pushed, ears)
                .await?;
        }
    }
}

impl Redis {
    async fn open_watch(&self) -> Result<(MultiplexedConnection, Pushed)> {
        let address = &self.0.address;
        let (sender, messages) = mpsc::channel(MOST_MESSAGES);
        let has_overflown = Arc::<AtomicBool>::default();
        let overflow = Arc::clone(&has_overflown);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_push_sender(move |message: PushInfo| {
                if sender.try_send(message).is_err() {
                    overflow.store(true, Ordering::Release);
                }
                Ok::<(), ()>(())
            });
        if !address.speaks_resp3() {
            return Err(self.cannot_be_watched());
        }
        let refused = |error: RedisError| match error.kind() {
            Fault::RESP3NotSupported => self.cannot_be_watched(),
            _ => self.0.connect_error(&error),
        };
        let client = address.client().map_err(refused)?;
        let opened = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = opened.await.map_err(refused)?;
        let mut track = cmd("CLIENT");
        track.arg(&["TRACKING", "ON", "BCAST"]);
        let tracked = track.query_async::<Value>(&mut connection).await;
        tracked.map_err(refused)?;
        let pushed = Pushed {
            messages,
            has_overflown,
        };
        Ok((connection, pushed))
    }

    fn cannot_be_watched(&self) -> Error {
        let does = "cannot be watched: that needs RESP3, which Redis 6 and Valkey speak";
        self.0.complaint(ErrorKind::Unsupported, does)
    }

    /// Tells what is pushed until `end`; or until all is to be forgotten, to be trusted again soon.
    async fn hear_until<T>(
        &self,
        end: impl Future<Output = T> + Send,
        pushed: &mut Pushed,
        ears: &dyn Ears,
    ) -> Result<Option<T>> {
        tokio::pin!(end);
        loop {
            tokio::select! {
                ended = &mut end => return Ok(Some(ended)),
                message = pushed.messages.recv() => match message {
                    Some(message) => {
                        if self.tell(message, ears).await? {
                            return Ok(None);
                        }
                    }
                    None => return Err(self.lost()),
                },
            }
        }
    }

    /// Tells of a message; whether it was to forget all.
    async fn tell(&self, message: PushInfo, ears: &dyn Ears) -> Result<bool> {
        match message.kind {
            PushKind::Disconnection => return Err(self.lost()),
            PushKind::Invalidate => {}
            _ => return Ok(false),
        }
        let Some(Value::Array(names)) = message.data.into_iter().next() else {
            // All keys at once: the server was flushed.
            ears.hear(News::Everything).await;
            return Ok(true);
        };
        let mut changed = Vec::with_capacity(names.len());
        for name in names {
            let Value::BulkString(name) = name else {
                return Err(self.odd());
            };
            // Ours are text; others' that are not are none of our business.
            let Ok(name) = String::from_utf8(name) else {
                continue;
            };
            if let Some(space) = name.strip_suffix(":@:numbers") {
                ears.hear(News::Space(space.into())).await;
            } else if !restarts::is_record(&name) {
                changed.push(name.into_boxed_str());
            }
        }
        if !changed.is_empty() {
            ears.hear(News::Changed(changed)).await;
        }
        Ok(false)
    }

    fn lost(&self) -> Error {
        let does = "closed the connection by which it was watched";
        self.0.complaint(ErrorKind::Unavailable, does)
    }
}
