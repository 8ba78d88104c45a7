//! Connections: a bounded number, and none that keeps its headers to itself.

use std::sync::Arc;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Server;

/// Serves until `stop` is done, then lets the requests under way end, and leaves the lanes.
pub async fn serve(server: &Arc<Server>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let router = server.router();
    let connections = Arc::new(Semaphore::new(server.settings.connections_max));
    let (leave, leaving) = watch::channel(());
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                tokio::spawn(answer(builder(server), router.clone(), stream, permit, leaving.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                server.seams.clock.sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    drop(leave);
    let all = u32::try_from(server.settings.connections_max).unwrap_or(u32::MAX);
    let ended = connections.acquire_many(all);
    if tokio::time::timeout(server.settings.patience, ended).await.is_err() {
        tracing::warn!("requests that did not end in time were cut");
    }
    server.leave().await;
}

async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

fn builder(server: &Server) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(server.settings.patience);
    builder
}

/// Serves a connection until its client ends it, or until the request under way is answered when the server leaves. A connection that
/// breaks concerns its client alone.
async fn answer(
    builder: Builder<TokioExecutor>,
    router: Router,
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    mut leaving: watch::Receiver<()>,
) {
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    tokio::select! {
        ended = connection.as_mut() => drop(ended),
        _ = leaving.changed() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
    drop(permit);
}
