//! One connection that many callers share.
//!
//! A caller adds its commands to the outbox and waits for their replies; the [`Driver`], a task,
//! writes what has gathered there and hands out what comes back. Replies come in the order of the
//! commands, and each carries the number of its command: one that does not fit breaks the
//! connection, so that nobody is ever given another's. A caller that goes away only stops waiting.
//!
//! After a reply that did not come in time the connection is *late*, whether or not its caller still
//! waits: callers fail at once until the server goes on. It is not replaced before long, since commands still on their way could reach the
//! server after those of the next connection, and undo them.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::reply::{Broken, Code, Parsed, Reply, parse};
use super::request::Batch;
use crate::Clock;

/// After how many timeouts of silence a late connection is given up.
const SILENCE: u32 = 10;
/// What is read at once where no more is known to come.
const CHUNK: usize = 16 * 1024;
/// How much room is made ahead for a value, whatever length its reply states.
const AHEAD: usize = 1 << 20;
/// Values from this size on keep the memory that they were read into; smaller ones are copied out of it.
const LARGE: usize = 32 * 1024;

/// Bytes that may wait to be sent, besides those of one batch that finds nobody before it.
const MOST_WAITING: usize = 128 << 20;
/// What somebody who waits costs besides the bytes.
const WAITER: usize = 256;

/// A stream of bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Why a call on a link came to nothing.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// The connection has ended, for this reason.
    Over(String),
    /// The server still owes replies, and is not asked for more.
    Late,
    /// More waits to be sent than is kept.
    Full,
}

/// What was learned about a server when it was connected to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hello {
    /// Which start of the server this is; 0 where restarts are trusted.
    pub(super) incarnation: u64,
    /// The largest item that it keeps, if it says so.
    pub(super) largest: Option<u64>,
    /// The server's time, in seconds since 1970.
    pub(super) time: u64,
}

/// A connection together with what was learned about the server behind it.
///
/// Every act takes both from the same link, so that no answer is judged by another run of the
/// server, and no state of an item is compared with that of another run.
#[derive(Debug)]
pub(super) struct Link {
    wire: Arc<Wire>,
    pub(super) hello: Hello,
    since: Instant,
    patience: Duration,
}

impl Link {
    /// Drives `stream` in a task until the link is dropped or the connection ends.
    ///
    /// `timeout` is how long callers wait for a reply.
    pub(super) fn new(
        stream: Box<dyn Stream>,
        hello: Hello,
        clock: &Clock,
        timeout: Duration,
    ) -> Self {
        let wire = Arc::new(Wire::default());
        let mut driver = Driver::new(stream, Arc::clone(&wire), timeout);
        drop(clock.spawn(async move {
            let why = std::future::poll_fn(|context| driver.turn(context)).await;
            driver.wire.end(why);
        }));
        Self {
            wire,
            hello,
            since: Instant::now(),
            patience: timeout * SILENCE,
        }
    }

    /// A batch for `count` commands, whose numbers no other has.
    pub(super) fn batch(&self, count: usize) -> Batch {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Batch::new(self.wire.numbers.fetch_add(count, Ordering::Relaxed))
    }

    /// Puts `batch` into the outbox; the replies come later.
    pub(super) fn send(&self, batch: Batch) -> Result<oneshot::Receiver<Vec<Reply>>, Fault> {
        let (bytes, next, count) = batch.into_parts();
        let (tell, told) = oneshot::channel();
        let waiter = Waiter {
            next,
            missing: count,
            got: Vec::with_capacity(count as usize),
            tell,
            since: Instant::now(),
        };
        let driver = {
            let mut outbox = self.wire.outbox();
            outbox.check().map_err(|late| self.wire.fault(late))?;
            if !outbox.has_room_for(bytes.len()) {
                return Err(Fault::Full);
            }
            outbox.bytes.extend_from_slice(&bytes);
            outbox.waiting.push_back(waiter);
            outbox.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(told)
    }

    /// What to say to a caller whose replies will not come.
    pub(super) fn fault(&self) -> Fault {
        self.wire.fault(false)
    }

    /// Notes that a reply did not come in time.
    pub(super) fn late(&self) {
        self.wire
            .outbox()
            .late_since
            .get_or_insert_with(Instant::now);
    }

    /// Whether the connection has ended, or has been silent for too long.
    pub(super) fn is_over(&self) -> bool {
        let mut outbox = self.wire.outbox();
        let silent = outbox
            .late_since
            .is_some_and(|since| since.elapsed() >= self.patience);
        outbox.over |= silent;
        outbox.over
    }

    /// The server's time now, in seconds since 1970.
    pub(super) fn server_time(&self) -> u64 {
        self.hello.time + self.since.elapsed().as_secs()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let driver = {
            let mut outbox = self.wire.outbox();
            outbox.over = true;
            outbox.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// What callers and driver share.
#[derive(Debug, Default)]
struct Wire {
    outbox: Mutex<Outbox>,
    numbers: AtomicU32,
    why: OnceLock<String>,
}

#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    waiting: VecDeque<Waiter>,
    driver: Option<Waker>,
    late_since: Option<Instant>,
    over: bool,
}

impl Outbox {
    /// Whether commands are taken; the error says whether that is for lateness alone.
    fn check(&self) -> Result<(), bool> {
        match (self.over, self.late_since) {
            (true, _) => Err(false),
            (false, Some(_)) => Err(true),
            (false, None) => Ok(()),
        }
    }

    /// Whether `more` bytes may wait as well; those that find nobody before them always may.
    fn has_room_for(&self, more: usize) -> bool {
        let waiting = self.bytes.len() + self.waiting.len() * WAITER;
        waiting == 0 || waiting + more <= MOST_WAITING
    }
}

impl Wire {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, late: bool) -> Fault {
        if late {
            return Fault::Late;
        }
        let why = self.why.get().map_or("it was given up", String::as_str);
        Fault::Over(why.to_owned())
    }

    /// Takes no more commands, and lets go of all who wait.
    fn end(&self, why: Option<String>) {
        if let Some(why) = why {
            let _ = self.why.set(why);
        }
        let mut outbox = self.outbox();
        outbox.over = true;
        outbox.bytes = Vec::new();
        let waiting = std::mem::take(&mut outbox.waiting);
        drop(outbox);
        drop(waiting);
    }
}

/// Who waits for the next replies.
#[derive(Debug)]
struct Waiter {
    /// The number of the command whose reply comes next.
    next: u32,
    missing: u32,
    got: Vec<Reply>,
    tell: oneshot::Sender<Vec<Reply>>,
    since: Instant,
}

/// Moves bytes both ways, in a task of its own.
struct Driver {
    stream: Box<dyn Stream>,
    wire: Arc<Wire>,
    output: Vec<u8>,
    written: usize,
    unflushed: bool,
    input: BytesMut,
    /// How many bytes the reply at the front of the input is known to need.
    missing: usize,
    waiting: VecDeque<Waiter>,
    limit: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    /// When the last reply came.
    heard: Instant,
}

impl Drop for Driver {
    // Also when the runtime ends under it.
    fn drop(&mut self) {
        self.wire.end(None);
        self.waiting.clear();
    }
}

/// Why a connection ended, in words.
type Why = String;

impl Driver {
    fn new(stream: Box<dyn Stream>, wire: Arc<Wire>, limit: Duration) -> Self {
        Self {
            stream,
            wire,
            output: Vec::new(),
            written: 0,
            unflushed: false,
            input: BytesMut::new(),
            missing: 1,
            waiting: VecDeque::new(),
            limit,
            alarm: None,
            heard: Instant::now(),
        }
    }

    /// Goes on until it has to wait; ready when the connection is over.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<Option<Why>> {
        loop {
            if !self.collect(context.waker()) {
                return Poll::Ready(None);
            }
            let moved = self
                .write(context)
                .and_then(|wrote| Ok(self.read(context)? || wrote));
            match moved {
                Ok(true) => {}
                Ok(false) => {
                    self.watch(context);
                    return Poll::Pending;
                }
                Err(why) => return Poll::Ready(Some(why)),
            }
        }
    }

    /// Notes when a reply is late. Callers do so too, but one with less patience has gone away by then.
    fn watch(&mut self, context: &mut Context<'_>) {
        let Some(oldest) = self.waiting.front() else {
            return;
        };
        let due = oldest.since.max(self.heard) + self.limit;
        let alarm = (self.alarm).get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        while alarm.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if due <= now {
                self.wire.outbox().late_since.get_or_insert(now);
                alarm.as_mut().reset(now + self.limit);
            } else {
                alarm.as_mut().reset(due);
            }
        }
    }

    /// Takes over what is in the outbox; false if the link is not used any more.
    fn collect(&mut self, waker: &Waker) -> bool {
        let mut outbox = self.wire.outbox();
        if outbox.over {
            return false;
        }
        if self.output.is_empty() && !outbox.bytes.is_empty() {
            std::mem::swap(&mut self.output, &mut outbox.bytes);
            self.waiting.append(&mut outbox.waiting);
        }
        if !outbox
            .driver
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            outbox.driver = Some(waker.clone());
        }
        true
    }

    fn write(&mut self, context: &mut Context<'_>) -> Result<bool, Why> {
        let mut moved = false;
        while self.written < self.output.len() {
            let mut write = pin!(self.stream.write(&self.output[self.written..]));
            match write.as_mut().poll(context) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err("the server takes no more".to_owned()),
                Poll::Ready(Ok(count)) => self.written += count,
                Poll::Ready(Err(error)) => return Err(error.to_string()),
            }
            moved = true;
            self.unflushed = true;
        }
        if self.written == self.output.len() && self.written > 0 {
            self.written = 0;
            self.output.clear();
            // Room that one large value took is not kept for ever.
            self.output.shrink_to(AHEAD);
        }
        if self.unflushed {
            let mut flush = pin!(self.stream.flush());
            match flush.as_mut().poll(context) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Err(error.to_string()),
            }
        }
        Ok(moved)
    }

    fn read(&mut self, context: &mut Context<'_>) -> Result<bool, Why> {
        self.input.reserve(self.missing.clamp(CHUNK, AHEAD));
        let mut read = pin!(self.stream.read_buf(&mut self.input));
        match read.as_mut().poll(context) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => return Err("the server closed the connection".to_owned()),
            Poll::Ready(Ok(count)) => self.missing = self.missing.saturating_sub(count),
            Poll::Ready(Err(error)) => return Err(error.to_string()),
        }
        if self.missing > 0 {
            return Ok(true);
        }
        self.hand_out().map_err(|Broken(why)| why.to_owned())?;
        Ok(true)
    }

    /// Gives every whole reply in the input to who waits for it.
    fn hand_out(&mut self) -> Result<(), Broken> {
        let mut any = false;
        loop {
            match parse(&self.input)? {
                Parsed::Short(missing) => {
                    self.missing = missing;
                    break;
                }
                Parsed::Whole { line, value, used } => {
                    let value = self.take(value, used);
                    self.hand_to_next(Reply { line, value })?;
                    any = true;
                }
            }
        }
        if any {
            self.heard = Instant::now();
            self.wire.outbox().late_since = None;
        }
        Ok(())
    }

    /// The value of the reply at the front of the input, which is taken off.
    fn take(&mut self, value: std::ops::Range<usize>, used: usize) -> Bytes {
        if value.len() >= LARGE {
            return self.input.split_to(used).freeze().slice(value);
        }
        let copy = Bytes::copy_from_slice(&self.input[value]);
        bytes::Buf::advance(&mut self.input, used);
        copy
    }

    fn hand_to_next(&mut self, reply: Reply) -> Result<(), Broken> {
        let waiter = self
            .waiting
            .front_mut()
            .ok_or(Broken("a reply to nothing"))?;
        let numbered = match (reply.line.opaque, &reply.line.code) {
            (Some(number), _) => number == waiter.next,
            // An error repeats nothing of the command; old servers say no more of a miss.
            (None, code) => matches!(code, Code::Refused(_) | Code::Miss),
        };
        if !numbered {
            return Err(Broken("a reply to another command"));
        }
        waiter.got.push(reply);
        waiter.next = waiter.next.wrapping_add(1);
        waiter.missing -= 1;
        if waiter.missing == 0
            && let Some(done) = self.waiting.pop_front()
        {
            // An error says that the caller has gone away.
            let _ = done.tell.send(done.got);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
