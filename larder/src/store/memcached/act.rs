//! How commands are sent: on which link, under which limit, and what happens when that breaks.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Memcached;
use super::connection::{Fault, Link};
use super::reply::{Code, Refusal, Reply};
use super::request::Batch;
use crate::{Error, ErrorKind, Moment, Result};

/// Whether commands may be sent again when their connection breaks under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Once,
    Never,
}

/// Commands on their way.
struct Asked {
    link: Arc<Link>,
    told: oneshot::Receiver<Vec<Reply>>,
}

/// What a server says, and on which link.
pub(super) type Answer = Result<(Arc<Link>, Vec<Reply>)>;

/// What one server is asked: how many commands, and which part of the whole they are.
pub(super) struct Part {
    pub(super) server: usize,
    pub(super) count: usize,
}

impl Memcached {
    pub(super) fn now(&self) -> Moment {
        self.0.clock.now()
    }

    /// The position of the server that keeps what is named `name`.
    pub(super) fn server_of(&self, name: &str) -> usize {
        let eject = self.0.address.eject;
        self.0
            .ring
            .server_of(name, |server| eject && self.0.servers[server].is_out())
    }

    pub(super) async fn link(&self, server: usize) -> Result<Arc<Link>> {
        self.0.servers[server].link().await
    }

    /// Asks one server on its live link; the link and the replies, one for each command.
    pub(super) async fn ask(
        &self,
        server: usize,
        count: usize,
        again: Again,
        build: impl Fn(&Link, &mut Batch) + Send + Sync,
    ) -> Result<(Arc<Link>, Vec<Reply>)> {
        let link = self.link(server).await?;
        match self.ask_once(server, &link, count, &build).await {
            Ok(replies) => Ok((link, replies)),
            Err(Failed::Broken(_)) if again == Again::Once => {
                drop(link);
                let link = self.link(server).await?;
                let replies = self.ask_on(server, &link, count, build).await?;
                Ok((link, replies))
            }
            Err(failed) => Err(self.failed(server, failed)),
        }
    }

    /// Asks one server on `link` and no other, for acts that compare with what was read there.
    pub(super) async fn ask_on(
        &self,
        server: usize,
        link: &Arc<Link>,
        count: usize,
        build: impl Fn(&Link, &mut Batch) + Send + Sync,
    ) -> Result<Vec<Reply>> {
        let replies = self.ask_once(server, link, count, &build).await;
        replies.map_err(|failed| self.failed(server, failed))
    }

    /// Sends a batch made for `link`.
    pub(super) async fn ask_batch(
        &self,
        server: usize,
        link: &Arc<Link>,
        batch: Batch,
    ) -> Result<Vec<Reply>> {
        let replies = match link.send(batch) {
            Ok(told) => {
                let link = Arc::clone(link);
                self.finish(server, Asked { link, told }).await
            }
            Err(fault) => Err(fault.into()),
        };
        replies
            .map(|(_, replies)| replies)
            .map_err(|failed| self.failed(server, failed))
    }

    /// Asks several servers at the same time; each is asked, whatever becomes of the others.
    pub(super) async fn ask_each(
        &self,
        parts: &[Part],
        again: Again,
        build: impl Fn(usize, &Link, &mut Batch) + Send + Sync,
    ) -> Vec<Answer> {
        let mut asked = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate() {
            let build = |link: &Link, batch: &mut Batch| build(at, link, batch);
            let link = self.link(part.server).await;
            asked.push(link.map(|link| start(&link, part.count, build)));
        }
        let mut answers = Vec::with_capacity(parts.len());
        for (at, (part, asked)) in parts.iter().zip(asked).enumerate() {
            let answer = match asked {
                Ok(Ok(asked)) => self.finish(part.server, asked).await,
                Ok(Err(failed)) => Err(failed),
                Err(error) => {
                    answers.push(Err(error));
                    continue;
                }
            };
            let build = |link: &Link, batch: &mut Batch| build(at, link, batch);
            answers.push(match answer {
                Ok(answer) => Ok(answer),
                Err(Failed::Broken(_)) if again == Again::Once => {
                    self.ask(part.server, part.count, Again::Never, build).await
                }
                Err(failed) => Err(self.failed(part.server, failed)),
            });
        }
        answers
    }

    /// Asks several servers at the same time, all of which have to answer.
    pub(super) async fn ask_all(
        &self,
        parts: &[Part],
        again: Again,
        build: impl Fn(usize, &Link, &mut Batch) + Send + Sync,
    ) -> Result<Vec<(Arc<Link>, Vec<Reply>)>> {
        let answers = self.ask_each(parts, again, build).await;
        answers.into_iter().collect()
    }

    async fn ask_once(
        &self,
        server: usize,
        link: &Arc<Link>,
        count: usize,
        build: impl Fn(&Link, &mut Batch) + Send + Sync,
    ) -> Result<Vec<Reply>, Failed> {
        let asked = start(link, count, build)?;
        let (_, replies) = self.finish(server, asked).await?;
        Ok(replies)
    }

    async fn finish(&self, server: usize, asked: Asked) -> Result<(Arc<Link>, Vec<Reply>), Failed> {
        let Asked { link, told } = asked;
        let limit = self.0.servers[server].limits.timeout;
        match self.0.clock.timeout(limit, told).await {
            Some(Ok(replies)) => Ok((link, replies)),
            Some(Err(_)) => Err(link.fault().into()),
            None => {
                link.late();
                Err(Failed::Late)
            }
        }
    }

    fn failed(&self, server: usize, failed: Failed) -> Error {
        let connector = &self.0.servers[server];
        match failed {
            Failed::Broken(why) => connector.broke(Fault::Over(why)),
            Failed::Owing => connector.broke(Fault::Late),
            Failed::Full => connector.broke(Fault::Full),
            Failed::Late => {
                let does = format!("did not answer within {:?}", connector.limits.timeout);
                connector.complaint(ErrorKind::Timeout, &does)
            }
        }
    }

    /// What a caller is told about a reply that fits no command of ours.
    pub(super) fn odd(&self, server: usize, reply: Option<&Reply>) -> Error {
        let connector = &self.0.servers[server];
        match reply.map(|reply| &reply.line.code) {
            Some(Code::Refused(Refusal::Other(text))) if text.contains("unauthenticated") => {
                connector.connect_error(&super::hello::Refused::Login(text.to_string()))
            }
            Some(Code::Refused(Refusal::NoMemory)) => connector
                .complaint(ErrorKind::Unavailable, "has no memory left")
                .with_hint("raise `-m`, or start it without `-M`"),
            Some(Code::Refused(Refusal::Other(text))) => connector.odd(text),
            Some(code) => connector.odd(&format!("{code:?}")),
            None => connector.odd("too few replies"),
        }
    }
}

fn start(
    link: &Arc<Link>,
    count: usize,
    build: impl Fn(&Link, &mut Batch),
) -> Result<Asked, Failed> {
    let mut batch = link.batch(count);
    build(link, &mut batch);
    let told = link.send(batch)?;
    Ok(Asked {
        link: Arc::clone(link),
        told,
    })
}

/// Why commands got no replies.
enum Failed {
    Broken(String),
    /// They were not sent.
    Owing,
    /// Nor were these.
    Full,
    Late,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Over(why) => Self::Broken(why),
            Fault::Late => Self::Owing,
            Fault::Full => Self::Full,
        }
    }
}
