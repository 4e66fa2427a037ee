//! The small HTTP server under Git servers and proxies.

use crate::control_plane::free_ports;
use crate::pki::Authority;
use crate::runtime;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io::{self, ErrorKind::AddrInUse};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How long an address of ours may be in use after it was given up.
const IN_USE: Duration = Duration::from_secs(2);

/// A response body, which may end in a cut connection.
pub(crate) type Body = UnsyncBoxBody<Bytes, Cut>;

/// The connection is to be closed now, with nothing more sent.
#[derive(Debug, thiserror::Error)]
#[error("the connection was cut")]
pub(crate) struct Cut;

/// What answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> Answer;
}

pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Cut>> + Send>>;

/// A server on one port of loopback for as long as it exists, stopped and started at will.
pub(crate) struct Server {
    address: SocketAddr,
    handler: Arc<dyn Handler>,
    tls: Option<TlsAcceptor>,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    /// Plain HTTP.
    pub(crate) async fn start(handler: Arc<dyn Handler>) -> Server {
        Server::start_with(handler, None).await
    }

    /// HTTPS with a certificate for `127.0.0.1` and `localhost`.
    pub(crate) async fn start_tls(handler: Arc<dyn Handler>, authority: &Authority) -> Server {
        let signed = authority.server(&["127.0.0.1", "localhost"]);
        let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes());
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.expect("our own PEM")], key.expect("our own PEM"))
            .expect("the key is the certificate's");
        Server::start_with(handler, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(handler: Arc<dyn Handler>, tls: Option<TlsAcceptor>) -> Server {
        loop {
            let [port] = free_ports();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let handler = Arc::clone(&handler);
            let tls = tls.clone();
            let server = Server { address, handler, tls, running: Mutex::new(None) };
            // Somebody may have taken the port since.
            if server.up().await.is_ok() {
                return server;
            }
        }
    }

    /// `http://127.0.0.1:PORT`, or the same with `https`.
    pub(crate) fn base(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Listens, unless it does already.
    pub(crate) async fn up(&self) -> io::Result<()> {
        let mut running = self.running.lock().await;
        if running.is_none() {
            let (address, handler) = (self.address, Arc::clone(&self.handler));
            let listener = listen(address).await?;
            *running = Some(runtime().spawn(accept(listener, self.tls.clone(), handler)));
        }
        Ok(())
    }

    /// Closes the port and every connection, and returns once they are closed.
    pub(crate) async fn down(&self) {
        if let Some(task) = self.running.lock().await.take() {
            task.abort();
            let _aborted = task.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = self.running.get_mut().take() {
            task.abort();
        }
    }
}

/// Listens on an address, which may be in use for a moment longer: a child that is being started
/// has a copy of the socket that was closed just before, until it has become its program.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let start = Instant::now();
    loop {
        match try_listen(address) {
            Err(error) if error.kind() == AddrInUse && start.elapsed() < IN_USE => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            result => return result,
        }
    }
}

fn try_listen(address: SocketAddr) -> io::Result<TcpListener> {
    let _context = runtime().enter();
    let socket = TcpSocket::new_v4()?;
    // Connections of the previous run may still be in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, handler: Arc<dyn Handler>) {
    // Dropped with this task, and its connections with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _peer)) = listener.accept().await else { continue };
        let _best_effort = stream.set_nodelay(true);
        let handler = Arc::clone(&handler);
        match tls.clone() {
            None => connections.spawn(serve(stream, handler)),
            Some(tls) => connections.spawn(async move {
                // A client that does not trust us ends here.
                if let Ok(stream) = tls.accept(stream).await {
                    serve(stream, handler).await;
                }
            }),
        };
    }
}

async fn serve<S>(stream: S, handler: Arc<dyn Handler>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| Arc::clone(&handler).handle(request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    // A cut is an error here, and meant.
    let _cut = connection.await;
}

/// A whole body.
pub(crate) fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A plain answer.
pub(crate) fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(text.to_owned()));
    *response.status_mut() = status;
    response
}
