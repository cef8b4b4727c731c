//! One call of the store, if it is to be called at all, and what is learnt from how it ends.

use std::future::Future;
use std::sync::atomic::Ordering;

use super::Forgiving;
use super::breaker::May;
use crate::{Error, ErrorKind, Result};

/// Why there is no answer.
pub(super) enum Failed {
    /// The store said so, or said nothing.
    Sent(Error),
    /// Nothing was sent.
    NotSent,
}

impl Forgiving {
    /// Sends `act`, unless the store is down.
    pub(super) async fn send<T>(
        &self,
        act: impl Future<Output = Result<T>> + Send,
    ) -> Result<T, Failed> {
        let turn = self.turn().ok_or(Failed::NotSent)?;
        let done = act.await;
        match &done {
            Err(error) if is_uncertain(error) => turn.failed(error),
            _ => turn.succeeded(),
        }
        done.map_err(Failed::Sent)
    }

    /// The right to call the store once.
    fn turn(&self) -> Option<Turn<'_>> {
        let may = if self.is_sound() {
            May::Call
        } else {
            self.book().breaker.ask(self.store.clock().now())
        };
        (may != May::Not).then(|| Turn {
            of: self,
            may,
            is_over: false,
        })
    }

    /// What a caller is told whose act failed so.
    pub(super) fn error(&self, failed: Failed) -> Error {
        let Failed::Sent(error) = failed else {
            return self.down();
        };
        error
    }

    fn down(&self) -> Error {
        let book = self.book();
        let failures = book.breaker.failures();
        let what = format!("nothing was sent, since the last {failures} calls failed");
        let error = Error::new(ErrorKind::Unavailable, &self.store, what)
            .with_hint("is the server running? it is tried again every few seconds");
        match &book.last_error {
            Some(last) => error.with_source(last.clone()),
            None => error,
        }
    }
}

/// One call of the store; ends in success, in failure, or when its caller goes away.
struct Turn<'a> {
    of: &'a Forgiving,
    may: May,
    is_over: bool,
}

impl Turn<'_> {
    fn succeeded(mut self) {
        self.is_over = true;
        if self.of.is_sound() {
            return;
        }
        let mut book = self.of.book();
        book.breaker.succeeded();
        book.last_error = None;
        self.of.shared.look_sound(&mut book);
    }

    fn failed(mut self, error: &Error) {
        self.is_over = true;
        let mut book = self.of.book();
        self.of.shared.sound.store(false, Ordering::Release);
        if !std::mem::replace(&mut book.in_outage, true) {
            book.forgiven.outages += 1;
            tracing::warn!(store = %self.of.store, %error, "store_failed");
        }
        book.breaker.failed(self.may, self.of.store.clock());
        book.last_error = Some(error.clone());
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.may == May::Probe {
            self.of.book().breaker.gave_up();
        }
    }
}

/// Whether an act that ended so may have happened, or may happen yet.
pub(super) fn is_uncertain(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Unsupported
    )
}
