//! How an act is sent: on which link, under which limit, and what happens when that breaks.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::{Pipeline, ServerErrorKind, Value as Reply};

use super::connection::{self, Connector, Link};
use super::{Redis, spread};
use crate::{Error, ErrorKind, Moment, Result};

/// Whether an act may be sent again when its connection breaks under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Once,
    Never,
}

impl Redis {
    pub(super) fn now(&self) -> Moment {
        self.0.clock.now()
    }

    /// Sends what `build` makes for the live link, in one trip; the link it was and the answers.
    pub(super) async fn call(
        &self,
        unknown: impl Fn(&Link) -> BTreeSet<Box<str>> + Send + Sync,
        again: Again,
        build: impl Fn(&Link) -> Pipeline + Send + Sync,
    ) -> Result<(Arc<Link>, Vec<Reply>)> {
        self.call_on(&self.0, unknown, again, build).await
    }

    /// The same for one of the servers.
    pub(super) async fn call_on(
        &self,
        server: &Arc<Connector>,
        unknown: impl Fn(&Link) -> BTreeSet<Box<str>> + Send + Sync,
        again: Again,
        build: impl Fn(&Link) -> Pipeline + Send + Sync,
    ) -> Result<(Arc<Link>, Vec<Reply>)> {
        let mut tries = if again == Again::Once { 2 } else { 1 };
        loop {
            tries -= 1;
            let link = server.link().await?;
            self.look_after_on(server, &link, &unknown(&link)).await?;
            let commands = build(&link);
            let sent = server.clock.timeout(server.timeout, link.send(&commands));
            match sent.await {
                None => return Err(late(server, &link)),
                Some(Ok(answers)) => {
                    server.answered();
                    return checked(server, link, answers);
                }
                Some(Err(error)) => {
                    if connection::is_broken(&error) {
                        server.discard(&link);
                        if tries > 0 {
                            continue;
                        }
                    }
                    return Err(server.server_error(&error));
                }
            }
        }
    }

    pub(super) fn odd(&self) -> Error {
        self.0
            .complaint(ErrorKind::Unavailable, "gave an unexpected reply")
    }

    /// Makes sure that bare integers under these prefixes are of this run of the server.
    pub(super) async fn look_after(
        &self,
        link: &Arc<Link>,
        groups: &BTreeSet<Box<str>>,
    ) -> Result<()> {
        self.look_after_on(&self.0, link, groups).await
    }

    async fn look_after_on(
        &self,
        server: &Arc<Connector>,
        link: &Arc<Link>,
        groups: &BTreeSet<Box<str>>,
    ) -> Result<()> {
        let (clock, limit) = (&server.clock, server.timeout);
        for group in groups {
            let asked = clock
                .timeout(limit, link.look_after(group, clock, limit))
                .await;
            let sweep = match asked {
                None => return Err(late(server, link)),
                Some(Ok(sweep)) => sweep,
                Some(Err(error)) => {
                    if connection::is_broken(&error) {
                        server.discard(link);
                    }
                    return Err(server.server_error(&error));
                }
            };
            let Some(mut sweep) = sweep else { continue };
            let outcome = clock.timeout(limit, sweep.wait_for(Option::is_some)).await;
            let Some(Ok(outcome)) = outcome else {
                let does = "was restarted; old integers are still being removed";
                return Err(server.complaint(ErrorKind::Timeout, does));
            };
            if let Some(Err(error)) = &*outcome {
                return Err(server.server_error(error));
            }
        }
        Ok(())
    }
}

/// The answers, unless one says that the server is in no state to answer.
fn checked(
    server: &Arc<Connector>,
    link: Arc<Link>,
    answers: Vec<Reply>,
) -> Result<(Arc<Link>, Vec<Reply>)> {
    for answer in &answers {
        let Reply::ServerError(error) = answer else {
            continue;
        };
        // Something else than ours under our name is nothing, and not an error; a word about where
        // else to ask is an answer.
        if error.code() == "WRONGTYPE" || spread::elsewhere(answer, server).is_some() {
            continue;
        }
        let moved = matches!(
            error.code(),
            "READONLY" | "MASTERDOWN" | "NOAUTH" | "WRONGPASS"
        );
        if moved || error.kind() == Some(ServerErrorKind::NoScript) {
            server.discard_refused(&link);
        }
        return Err(server.server_error(&error.clone().into()));
    }
    Ok((link, answers))
}

fn late(server: &Arc<Connector>, link: &Arc<Link>) -> Error {
    server.suspect(link);
    let does = format!("did not answer within {:?}", server.timeout);
    server.complaint(ErrorKind::Timeout, &does)
}
