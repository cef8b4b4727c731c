//! The body of an answer: kept bytes, bytes that are being collected, or the handler's own body.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc::UnboundedReceiver;

/// The body of a [`CacheService`](super::CacheService)'s answer.
///
/// A kept page is one piece that shares its bytes with the store.
pub struct PageBody<B: Body>(Inner<B>);

enum Inner<B: Body> {
    Kept(Option<Bytes>),
    /// Sent while it is collected. The pieces are bounded by the limit on kept bodies; past it the
    /// rest of the handler's own body comes as the last piece.
    Fed {
        pieces: UnboundedReceiver<Piece<B>>,
        hint: SizeHint,
        is_over: bool,
    },
    Own(Pin<Box<B>>),
}

/// What the one who collects a body hands to the client.
pub(super) enum Piece<B: Body> {
    Data(Bytes),
    Trailers(HeaderMap),
    /// The body is not collected any further.
    Rest(Pin<Box<B>>),
    Broken(B::Error),
    /// The body has come to its end. A channel that closes without it is a body that broke off.
    End,
}

impl<B: Body> PageBody<B> {
    pub(super) fn kept(bytes: Bytes) -> Self {
        Self(Inner::Kept((!bytes.is_empty()).then_some(bytes)))
    }

    pub(super) fn empty() -> Self {
        Self(Inner::Kept(None))
    }

    pub(super) fn own(body: B) -> Self {
        Self(Inner::Own(Box::pin(body)))
    }

    pub(super) fn fed(pieces: UnboundedReceiver<Piece<B>>, hint: SizeHint) -> Self {
        Self(Inner::Fed {
            pieces,
            hint,
            is_over: false,
        })
    }
}

impl<B: Body<Data = Bytes>> Body for PageBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        loop {
            let next = match &mut self.0 {
                Inner::Kept(bytes) => {
                    return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))));
                }
                Inner::Own(body) => return body.as_mut().poll_frame(context),
                Inner::Fed { is_over: true, .. } => return Poll::Ready(None),
                Inner::Fed {
                    pieces, is_over, ..
                } => match pieces.poll_recv(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Piece::Data(bytes))) => {
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                    Poll::Ready(Some(Piece::Trailers(trailers))) => {
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    Poll::Ready(Some(Piece::Broken(error))) => {
                        *is_over = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                    Poll::Ready(Some(Piece::End)) => {
                        *is_over = true;
                        return Poll::Ready(None);
                    }
                    Poll::Ready(Some(Piece::Rest(body))) => Inner::Own(body),
                    // The collector died between two pieces, which only a panic in the handler's
                    // body does: panicking here as it would have without a cache, the connection
                    // breaks off, and the client does not take half a page for a whole one.
                    Poll::Ready(None) => panic!("the body of the page panicked"),
                },
            };
            self.0 = next;
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Kept(bytes) => bytes.is_none(),
            Inner::Fed { is_over, .. } => *is_over,
            Inner::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Kept(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Inner::Fed {
                hint,
                is_over: false,
                ..
            } => *hint,
            Inner::Fed { .. } => SizeHint::with_exact(0),
            Inner::Own(body) => body.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for PageBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Inner::Kept(_) => "PageBody::kept",
            Inner::Fed { .. } => "PageBody::fed",
            Inner::Own(_) => "PageBody::own",
        })
    }
}
