//! Several servers asked at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Runs all of `work` at once, in this task; what each gave, in order.
pub(super) async fn all<F: Future>(work: Vec<F>) -> Vec<F::Output> {
    let count = work.len();
    let mut given: Vec<Option<F::Output>> = (0..count).map(|_| None).collect();
    let mut work: Vec<Pin<Box<F>>> = work.into_iter().map(Box::pin).collect();
    poll_fn(|context| {
        for (work, given) in work.iter_mut().zip(&mut given) {
            if given.is_none()
                && let Poll::Ready(done) = work.as_mut().poll(context)
            {
                *given = Some(done);
            }
        }
        if given.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    given.into_iter().flatten().collect()
}

/// Runs all of `work` at once until `enough` have given something, or all have ended; what was given.
/// The rest is dropped.
pub(super) async fn until<T, F: Future<Output = Option<T>>>(work: Vec<F>, enough: usize) -> Vec<T> {
    let mut given = Vec::new();
    let mut work: Vec<Pin<Box<F>>> = work.into_iter().map(Box::pin).collect();
    poll_fn(|context| {
        work.retain_mut(|work| match work.as_mut().poll(context) {
            Poll::Ready(done) => {
                given.extend(done);
                false
            }
            Poll::Pending => true,
        });
        if given.len() >= enough || work.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    given
}

/// More than half of `count`.
pub(super) fn majority(count: usize) -> usize {
    count / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_questions() {
        let wait = |ms| async move {
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
            ms
        };

        assert_eq!(all(vec![wait(3), wait(0), wait(1)]).await, [3, 0, 1]);
    }

    #[tokio::test]
    async fn who_does_not_answer_holds_nobody_up() {
        let answer = |it: Option<u8>, ends: bool| async move {
            if !ends {
                std::future::pending::<()>().await;
            }
            it
        };
        let work = vec![
            answer(None, true),
            answer(Some(1), false),
            answer(Some(2), true),
        ];

        assert_eq!(until(work, 1).await, [2]);
        assert!(until(vec![answer(None, true)], 1).await.is_empty());
    }
}
