//! Connections that are cut where a fault asks for it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::testing::NoAnswer;

/// Does to the connection what a fault asks for.
pub(crate) async fn obey(
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    match response.extensions().get::<NoAnswer>() {
        None => {}
        Some(NoAnswer::Cut) => wire.set(CUT),
        Some(NoAnswer::CutInBody) => wire.set(CUT_AFTER_FLUSH),
        Some(NoAnswer::NotHttp) => wire.set(GARBAGE),
    }
    response
}

/// What becomes of a connection; 0 while nothing does.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<AtomicU8>);

/// Nothing goes out any more.
const CUT: u8 = 1;
/// What is under way goes out, and nothing behind it.
const CUT_AFTER_FLUSH: u8 = 2;
/// Other bytes go out instead.
const GARBAGE: u8 = 3;

/// What a server says that speaks another language.
const OTHER_BYTES: &[u8] = b"\x15\x03\x01\x00\x02\x02\x0a not HTTP\r\n\r\n";

impl Wire {
    fn set(&self, fate: u8) {
        self.0.store(fate, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

fn cut<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

/// A listener whose connections can be cut.
pub(crate) struct Wired<L>(pub(crate) L);

impl<L: Listener> Listener for Wired<L> {
    type Io = Stream<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (inner, address) = self.0.accept().await;
        let stream = Stream {
            inner,
            wire: Wire::default(),
            said: 0,
        };
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl<L: Listener> Connected<IncomingStream<'_, Wired<L>>> for Wire {
    fn connect_info(stream: IncomingStream<'_, Wired<L>>) -> Wire {
        stream.io().wire.clone()
    }
}

/// A connection that can be cut.
pub(crate) struct Stream<S> {
    inner: S,
    wire: Wire,
    /// How many of the other bytes are out.
    said: usize,
}

impl<S: AsyncWrite + Unpin> Stream<S> {
    /// Says the other bytes; this ends in the cut.
    fn poll_garbage(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while let Some(left) = OTHER_BYTES.get(self.said..).filter(|left| !left.is_empty()) {
            self.said += ready!(Pin::new(&mut self.inner).poll_write(context, left))?;
        }
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        self.wire.set(CUT);
        cut()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.wire.get() {
            CUT => cut(),
            GARBAGE => self.poll_garbage(context),
            _ => Pin::new(&mut self.inner).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.wire.get() {
            CUT => cut(),
            GARBAGE => self.poll_garbage(context),
            _ => Pin::new(&mut self.inner).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        match self.wire.get() {
            CUT_AFTER_FLUSH => {
                self.wire.set(CUT);
                cut()
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
