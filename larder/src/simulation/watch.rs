//! A simulated server that tells what changes, over connections that stall, overflow and break.
//!
//! Each connection keeps its order, as TCP does: a message that is late holds up those behind it. What is
//! lost is lost with the connection, or made up for when there is room again; some comes twice.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Remote, Server};
use crate::store::{Ears, News, Watch};
use crate::{Error, ErrorKind, Moment, Result};

/// How long a simulated process waits for a sign of life.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a stalled connection holds back what is on it, at most.
const LONGEST_STALL: u64 = 3_000;

/// What is on its way to a process.
enum Sent {
    News(News),
    Pong(Moment),
    Closed,
}

/// What is wrong with a process's connection for a while.
#[derive(Default)]
struct Line {
    cut_until: Option<Instant>,
    full_until: Option<Instant>,
}

/// What keeps a process from hearing; shared by its connections, one after the other.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Line>>);

impl Lines {
    fn line(&self) -> std::sync::MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        let until = self.line().full_until;
        until.is_some_and(|until| until > Instant::now())
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

/// A connection, as the server sees it.
pub(super) struct Session {
    number: u64,
    sender: mpsc::UnboundedSender<(Instant, Sent)>,
    lines: Lines,
    last: Instant,
    /// Whether messages were dropped since it was last told to forget.
    has_dropped: bool,
}

impl Session {
    fn send(&mut self, server: &Server, sent: Sent) {
        let mut at = Instant::now() + server.watch_delay();
        if let Some(until) = self.lines.line().cut_until {
            at = at.max(until);
        }
        self.last = self.last.max(at);
        // Nobody listens any more: the next to look removes it.
        let _ = self.sender.send((self.last, sent));
    }

    fn tell(&mut self, server: &Server, news: News) {
        if self.lines.is_full() {
            self.has_dropped = true;
            return;
        }
        self.make_up(server);
        self.send(server, Sent::News(news));
    }

    fn make_up(&mut self, server: &Server) {
        if std::mem::take(&mut self.has_dropped) {
            self.send(server, Sent::News(News::Everything));
        }
    }
}

impl Server {
    /// Tells all who listen.
    pub(super) fn publish(&self, news: &[News]) {
        let mut sessions = std::mem::take(&mut self.content().sessions);
        sessions.retain(|session| !session.sender.is_closed());
        let lost = u64::from(self.content().faults.lost);
        sessions.retain_mut(|session| {
            for news in news {
                let chance = self.0.clock.random() % 1000;
                if chance < lost / 4 {
                    session.send(self, Sent::Closed);
                    return false;
                }
                session.tell(self, news.clone());
                if chance > 950 {
                    session.tell(self, news.clone());
                }
            }
            true
        });
        self.content().sessions.append(&mut sessions);
    }

    /// Breaks the connections of all who listen.
    pub(super) fn close_sessions(&self) {
        let sessions = std::mem::take(&mut self.content().sessions);
        for mut session in sessions {
            session.send(self, Sent::Closed);
        }
    }

    fn watch_delay(&self) -> Duration {
        let longest = self.content().faults.longest;
        let usual = self.delay(longest);
        let number = self.0.clock.random();
        if number.is_multiple_of(64) {
            return usual + Duration::from_millis((number >> 32) % LONGEST_STALL);
        }
        usual
    }

    fn pong(&self, number: u64, asked: Moment) {
        let mut sessions = std::mem::take(&mut self.content().sessions);
        let session = sessions.iter_mut().find(|session| session.number == number);
        if let Some(session) = session
            && !session.lines.is_full()
        {
            session.make_up(self);
            session.send(self, Sent::Pong(asked));
        }
        self.content().sessions.append(&mut sessions);
    }
}

impl Remote {
    /// Lets nothing through to this process's ears for `span`, nor from them; what is sent meanwhile
    /// comes afterwards. All else still reaches the server.
    pub fn cut_watch(&self, span: Duration) {
        self.lines.line().cut_until = Some(Instant::now() + span);
    }

    /// Drops what this process would hear for `span`, and has it forget all afterwards.
    pub fn overflow_watch(&self, span: Duration) {
        self.lines.line().full_until = Some(Instant::now() + span);
    }

    fn not_heard(what: &str) -> Error {
        Error::new(ErrorKind::Unavailable, "remote", what)
    }
}

#[async_trait]
impl Watch for Remote {
    async fn watch(&self, ears: &dyn Ears, pace: Duration) -> Result<Infallible> {
        let server = &self.server;
        self.clock.sleep(server.watch_delay()).await;
        let is_cut = self.lines.line().cut_until;
        if is_cut.is_some_and(|until| until > Instant::now()) {
            return Err(Self::not_heard("the simulated server cannot be reached"));
        }
        let (sender, mut inbox) = mpsc::unbounded_channel();
        let mut session = Session {
            number: server.0.clock.random(),
            sender,
            lines: self.lines.clone(),
            last: Instant::now(),
            has_dropped: false,
        };
        let number = session.number;
        session.send(server, Sent::News(News::Everything));
        server.content().sessions.push(session);
        let mut waiting: Option<(Instant, Sent)> = None;
        let mut asked: Option<(Moment, Instant)> = None;
        let mut next_ping = Instant::now();
        // When the ping that is on its way arrives.
        let mut arrives: Option<Instant> = None;
        loop {
            if waiting.is_none() {
                waiting = inbox.try_recv().ok();
            }
            let now = Instant::now();
            if asked.is_none() && now >= next_ping {
                asked = Some((self.clock.now(), now));
                let mut at = now + server.delay(server.content().faults.longest);
                if let Some(until) = self.lines.line().cut_until {
                    at = at.max(until);
                }
                arrives = Some(at);
            }
            if arrives.is_some_and(|at| at <= now) {
                arrives = None;
                if let Some((moment, _)) = asked {
                    server.pong(number, moment);
                }
                continue;
            }
            if asked.is_some_and(|(_, since)| since + PATIENCE <= now) {
                return Err(Self::not_heard("the simulated server did not answer"));
            }
            if let Some((at, _)) = &waiting
                && *at <= now
            {
                match waiting.take() {
                    Some((_, Sent::News(news))) => {
                        server.say(|| format!("{:?} hears {news:?}", self.clock));
                        ears.hear(news).await;
                    }
                    Some((_, Sent::Pong(moment))) => {
                        asked = None;
                        next_ping = now + pace;
                        ears.hear(News::Current(moment)).await;
                    }
                    _ => {
                        return Err(Self::not_heard(
                            "the simulated server closed the connection",
                        ));
                    }
                }
                continue;
            }
            let patience = asked.map_or(next_ping, |(_, since)| since + PATIENCE);
            let mut wake = arrives.map_or(patience, |at| at.min(patience));
            if let Some((at, _)) = &waiting {
                wake = wake.min(*at);
            }
            tokio::select! {
                biased;
                sent = inbox.recv(), if waiting.is_none() => match sent {
                    Some(sent) => waiting = Some(sent),
                    None => return Err(Self::not_heard("the simulated server is gone")),
                },
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }
}
