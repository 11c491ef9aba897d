//! The broker on sockets.

use std::future::{Future, IntoFuture};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use axum::middleware::from_fn;
use axum::serve::ListenerExt;
use tokio::net::{TcpListener, UnixListener};

use crate::Broker;
use crate::wire::{Wire, Wired, obey};

/// Where [`serve`] takes connections from.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A socket file.
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Listener {
        Listener::Unix(listener)
    }
}

/// Serves a broker on a listener until `shutdown` completes; then parked polls are answered and requests under way are
/// finished, but for those that take longer than `grace`: a client that has sent half a request must not hold the end up
/// for ever. The broker stays open, for other listeners too, but parks no polls any more.
pub async fn serve(
    broker: Broker,
    listener: impl Into<Listener>,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    match listener.into() {
        Listener::Unix(listener) => serve_on(broker, listener, shutdown, grace).await,
        Listener::Tcp(listener) => {
            let listener = listener.tap_io(|stream| {
                // Answers are small and urgent.
                let _ = stream.set_nodelay(true);
            });
            serve_on(broker, listener, shutdown, grace).await
        }
    }
}

type Serving = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

async fn serve_on<L: axum::serve::Listener<Addr: std::fmt::Debug>>(
    broker: Broker,
    listener: L,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    let (began, begun) = tokio::sync::oneshot::channel();
    let shared = broker.shared.clone();
    let shutdown = async move {
        shutdown.await;
        shared.end_polls();
        let _ = began.send(());
    };
    let router = broker.router();
    let serving: Serving = match broker.testing() {
        // Only tests pay for connections that can be cut.
        Some(_) => {
            let router = router.layer(from_fn(obey));
            let service = router.into_make_service_with_connect_info::<Wire>();
            let serving = axum::serve(Wired(listener), service);
            Box::pin(serving.with_graceful_shutdown(shutdown).into_future())
        }
        None => {
            let serving = axum::serve(listener, router.into_make_service());
            Box::pin(serving.with_graceful_shutdown(shutdown).into_future())
        }
    };
    let overdue = async {
        if begun.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        served = serving => served,
        () = overdue => Ok(()),
    }
}
