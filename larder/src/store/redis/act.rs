//! How an act is sent: on which link, under which limit, and what happens when that breaks.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::{Pipeline, ServerErrorKind, Value as Reply};

use super::Redis;
use super::connection::{self, Link};
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
        let mut tries = if again == Again::Once { 2 } else { 1 };
        loop {
            tries -= 1;
            let link = self.0.link().await?;
            self.look_after(&link, &unknown(&link)).await?;
            let commands = build(&link);
            match self
                .0
                .clock
                .timeout(self.0.timeout, link.send(&commands))
                .await
            {
                None => return Err(self.late(&link)),
                Some(Ok(answers)) => {
                    self.0.answered();
                    return self.checked(link, answers);
                }
                Some(Err(error)) => {
                    if connection::is_broken(&error) {
                        self.0.discard(&link);
                        if tries > 0 {
                            continue;
                        }
                    }
                    return Err(self.0.server_error(&error));
                }
            }
        }
    }

    /// The answers, unless one says that the server is in no state to answer.
    fn checked(&self, link: Arc<Link>, answers: Vec<Reply>) -> Result<(Arc<Link>, Vec<Reply>)> {
        for answer in &answers {
            let Reply::ServerError(error) = answer else {
                continue;
            };
            // Something else than ours under our name is nothing, and not an error.
            if error.code() == "WRONGTYPE" {
                continue;
            }
            let moved = matches!(
                error.code(),
                "READONLY" | "MASTERDOWN" | "NOAUTH" | "WRONGPASS"
            );
            if moved || error.kind() == Some(ServerErrorKind::NoScript) {
                self.0.discard_refused(&link);
            }
            return Err(self.0.server_error(&error.clone().into()));
        }
        Ok((link, answers))
    }

    fn late(&self, link: &Arc<Link>) -> Error {
        self.0.suspect(link);
        let does = format!("did not answer within {:?}", self.0.timeout);
        self.0.complaint(ErrorKind::Timeout, &does)
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
        let (clock, limit) = (&self.0.clock, self.0.timeout);
        for group in groups {
            let asked = clock
                .timeout(limit, link.look_after(group, clock, limit))
                .await;
            let sweep = match asked {
                None => return Err(self.late(link)),
                Some(Ok(sweep)) => sweep,
                Some(Err(error)) => {
                    if connection::is_broken(&error) {
                        self.0.discard(link);
                    }
                    return Err(self.0.server_error(&error));
                }
            };
            let Some(mut sweep) = sweep else { continue };
            let outcome = clock.timeout(limit, sweep.wait_for(Option::is_some)).await;
            let Some(Ok(outcome)) = outcome else {
                let does = "was restarted; old integers are still being removed";
                return Err(self.0.complaint(ErrorKind::Timeout, does));
            };
            if let Some(Err(error)) = &*outcome {
                return Err(self.0.server_error(error));
            }
        }
        Ok(())
    }
}
