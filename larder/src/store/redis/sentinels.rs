//! Where the primary is, by what sentinels say.
//!
//! They are asked at each connect, and again while a connection lives: a primary that was cut off from
//! the others does not know that another has taken its place. The newest word of a majority of those in
//! the URL counts, by the epoch that each failover raises; the epoch is a part of the incarnation, so
//! that a server that is the primary for the second time is not taken for what it was the first time.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind as Fault, Pipeline, RedisResult, Value, cmd};
use tokio::time::Instant;

use super::address::Address;
use super::connection::{Connector, Link, Role};
use super::{reply, together};
use crate::Clock;

/// How long a link to a primary that sentinels named is used before they are asked again, beside it.
pub(super) const TRUSTED: Duration = Duration::from_secs(1);
/// How long before they are asked first: a link that nobody used may have lived through failovers.
pub(super) const TRUSTED_UNUSED: Duration = Duration::from_secs(3);

/// The sentinels of a URL.
pub(super) struct Sentinels {
    addresses: Vec<Address>,
    name: String,
    /// How to log in to a server.
    server: Address,
}

/// Where the primary is, and since which failover.
pub(super) struct Primary {
    pub(super) address: Address,
    pub(super) epoch: u64,
}

impl Sentinels {
    pub(super) fn new(addresses: &[Address], name: String, server: Address) -> Self {
        // Sentinels need none of RESP3, and their tables are lists without it.
        let addresses = addresses.iter().map(Address::with_resp2).collect();
        Self {
            addresses,
            name,
            server,
        }
    }

    /// Asks the sentinels, each for at most `limit`.
    pub(super) async fn primary(&self, clock: &Clock, limit: Duration) -> RedisResult<Primary> {
        let ask = |address| async move {
            let asked = clock.timeout(limit, self.ask(address)).await?;
            asked
                .inspect_err(
                    |error| tracing::debug!(sentinel = %address, %error, "sentinel_failed"),
                )
                .ok()
        };
        let asked = self.addresses.iter().map(ask).collect();
        let given = together::until(asked, together::majority(self.addresses.len())).await;
        let newest = given.into_iter().max_by_key(|primary| primary.epoch);
        newest.ok_or_else(|| {
            let detail = format!("no sentinel knows a primary named `{}`", self.name);
            (Fault::Client, "the sentinels", detail).into()
        })
    }

    async fn ask(&self, address: &Address) -> RedisResult<Primary> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let mut connection: MultiplexedConnection = (address.client()?)
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let mut ask = Pipeline::new();
        for what in ["GET-MASTER-ADDR-BY-NAME", "MASTER"] {
            ask.add_command(cmd("SENTINEL").arg(what).arg(&self.name).to_owned());
        }
        let answers = connection.send_packed_commands(&ask, 0, 2).await?;
        self.read(answers).ok_or_else(|| {
            let detail = format!("`{address}` knows no primary named `{}`", self.name);
            (Fault::Client, "the sentinel", detail).into()
        })
    }

    fn read(&self, answers: Vec<Value>) -> Option<Primary> {
        let [place, about] = <[Value; 2]>::try_from(answers).ok()?;
        let [host, port] = <[Value; 2]>::try_from(reply::list(place)?).ok()?;
        let about = reply::list(about)?;
        let epoch = about.chunks_exact(2).find_map(|pair| {
            let is_epoch = reply::text(&pair[0]) == Some("config-epoch");
            is_epoch.then(|| reply::number(&pair[1]))?
        })?;
        let address = self
            .server
            .at(reply::text(&host)?, reply::number::<u16>(&port)?);
        Some(Primary { address, epoch })
    }
}

impl Connector {
    /// Asks the sentinels from time to time whether the server of the live link is the primary still,
    /// and gives the link up if not. Sentinels that do not answer change nothing.
    pub(super) async fn ask_again(self: &Arc<Self>) {
        let Role::Named(_) = &self.role else { return };
        let Some(link) = self.live() else { return };
        let unsure = || self.named_at().map_or(Duration::MAX, |at| at.elapsed());
        if unsure() < TRUSTED {
            return;
        }
        if unsure() < TRUSTED_UNUSED {
            *self.named_at() = Some(Instant::now());
            let connector = Arc::clone(self);
            self.clock
                .spawn(async move { connector.ask_about(&link).await });
            return;
        }
        // Whoever comes meanwhile waits as well, and finds that it has been asked.
        let _turn = self.asking.lock().await;
        if unsure() >= TRUSTED_UNUSED {
            self.ask_about(&link).await;
            *self.named_at() = Some(Instant::now());
        }
    }

    async fn ask_about(&self, link: &Arc<Link>) {
        if let Some(Ok(primary)) = self.primary().await {
            let is_same = link.named.as_ref() == Some(&primary.address.to_string());
            // A sentinel that was away itself may say what was so before.
            if primary.epoch > link.epoch || primary.epoch == link.epoch && !is_same {
                self.discard(link);
            }
        }
    }

    /// What the sentinels say, if there are any.
    pub(super) async fn primary(&self) -> Option<RedisResult<Primary>> {
        match &self.role {
            // The server itself has to be asked within the same limit.
            Role::Named(sentinels) => {
                let limit = self.connect_timeout / 3;
                Some(sentinels.primary(&self.clock, limit).await)
            }
            _ => None,
        }
    }
}
