//! One kept-alive connection. Whoever has a request on it moves it on, so that no task of its own has to be woken, and
//! whoever lets go of a request closes it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Request, response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// The bytes below HTTP, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A body that tells when it is read, which is right before the first bytes of the request leave.
pub(super) struct Watched {
    body: Option<Bytes>,
    left: Arc<AtomicBool>,
}

impl Watched {
    /// `left` is set when the first bytes of the request may have left.
    pub(super) fn new(body: Option<Bytes>, left: &Arc<AtomicBool>) -> Watched {
        Watched {
            body,
            left: left.clone(),
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.left.store(true, Ordering::SeqCst);
        Poll::Ready(self.body.take().map(|body| Ok(Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.as_ref().map_or(0, |body| body.len() as u64))
    }
}

/// Why there is no answer.
pub(super) enum Failed {
    /// Nothing has left: the connection had ended before.
    Unsent(Box<Request<Watched>>),
    Broken(hyper::Error),
    /// The answer with this status is too large.
    TooLarge(u16),
}

impl From<hyper::Error> for Failed {
    fn from(error: hyper::Error) -> Failed {
        Failed::Broken(error)
    }
}

pub(super) struct Connection {
    sender: SendRequest<Watched>,
    driver: Driver,
}

struct Driver {
    http: http1::Connection<TokioIo<Box<dyn Stream>>, Watched>,
    ended: bool,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) {
        // An error comes out of the request as well.
        self.ended = self.ended || Pin::new(&mut self.http).poll(cx).is_ready();
    }

    /// Awaits a part of an exchange.
    async fn drive<F: Future>(&mut self, part: F) -> F::Output {
        let mut part = pin!(part);
        poll_fn(|cx| {
            if let Poll::Ready(output) = part.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            self.poll(cx);
            part.as_mut().poll(cx)
        })
        .await
    }
}

impl Connection {
    pub(super) async fn open(stream: Box<dyn Stream>) -> hyper::Result<Connection> {
        let (sender, http) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = Driver { http, ended: false };
        Ok(Connection { sender, driver })
    }

    /// Whether another request may go. Looks whether the broker has closed it.
    pub(super) async fn is_idle(&mut self) -> bool {
        poll_fn(|cx| {
            self.driver.poll(cx);
            Poll::Ready(!self.driver.ended && self.sender.is_ready())
        })
        .await
    }

    /// Sends a request and collects the answer, of which the body may have so many bytes.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Watched>,
        most: usize,
    ) -> Result<(response::Parts, Bytes), Failed> {
        if request.body().is_end_stream() {
            request.body().left.store(true, Ordering::SeqCst);
        }
        let answer = self.sender.try_send_request(request);
        let (head, mut body) = match self.driver.drive(answer).await {
            Ok(answer) => answer.into_parts(),
            Err(mut error) => {
                return Err(match error.take_message() {
                    Some(request) => Failed::Unsent(Box::new(request)),
                    None => error.into_error().into(),
                });
            }
        };
        let too_large = || Failed::TooLarge(head.status.as_u16());
        let expected = body.size_hint().exact().unwrap_or(0);
        if expected > most as u64 {
            return Err(too_large());
        }
        let expected = expected as usize;
        let mut whole = BytesMut::new();
        while let Some(frame) = self.driver.drive(body.frame()).await {
            let Ok(chunk) = frame?.into_data() else {
                continue;
            };
            if whole.len() + chunk.len() > most {
                return Err(too_large());
            }
            if whole.is_empty() && chunk.len() == expected {
                return Ok((head, chunk));
            }
            if whole.is_empty() {
                whole.reserve(expected.max(chunk.len()).min(1 << 20));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok((head, whole.freeze()))
    }
}
