//! A small HTTP server: `git http-backend` behind it, or whatever answer a test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How long a test waits for a request.
const LIMIT: Duration = Duration::from_mins(1);

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes of the answer's body.
    pub(crate) answered: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_fetch(&self) -> bool {
        self.body.windows(13).any(|w| w == b"command=fetch") || self.is_v0_fetch()
    }

    fn is_v0_fetch(&self) -> bool {
        self.body.get(4..9) == Some(b"want ")
    }
}

/// What to answer.
pub(crate) enum Reply {
    /// Status, headers, body.
    Whole(u16, Vec<(String, String)>, Vec<u8>),
    /// As above, but the connection stays open until the next request begins on it.
    Kept(u16, Vec<(String, String)>, Vec<u8>),
    /// These first bytes of a body, then nothing until the client goes away.
    Stall(&'static str, Vec<u8>),
    /// A head of a body, then one piece over and over until the client goes away.
    Endless(&'static str, Vec<u8>, Vec<u8>),
}

pub(crate) const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
pub(crate) const RESULT: &str = "application/x-git-upload-pack-result";

impl Reply {
    pub(crate) fn git(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".into(), content_type.into())];
        Self::Whole(200, headers, body.into())
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Whole(status, Vec::new(), b"no".to_vec())
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server on loopback, ended on drop.
pub(crate) struct Server {
    scheme: &'static str,
    address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn backend(root: &Path) -> Self {
        let root = root.to_owned();
        Self::with(move |request| backend(&root, request))
    }

    pub(crate) fn with(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(handler, None)
    }

    /// A server that speaks TLS.
    pub(crate) fn with_tls(
        config: ServerConfig,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(handler, Some(Arc::new(config)))
    }

    fn start(
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Vec<Request>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let handler: Arc<Handler> = Arc::new(handler);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (thread_log, thread_stop) = (log.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if thread_stop.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                let (log, handler) = (thread_log.clone(), handler.clone());
                let tls = tls.clone();
                std::thread::spawn(move || match tls {
                    None => serve(stream, &log, &handler),
                    Some(config) => {
                        let connection = ServerConnection::new(config).unwrap();
                        serve(StreamOwned::new(connection, stream), &log, &handler);
                    }
                });
            }
        });
        Self { scheme, address, log, stop }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}/{path}", self.scheme, self.address)
    }

    /// The requests since the last look.
    pub(crate) fn take_log(&self) -> Vec<Request> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// Waits until this many requests came since the last look.
    pub(crate) fn wait_for(&self, requests: usize) {
        let start = Instant::now();
        while self.log.lock().unwrap().len() < requests {
            assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} for {requests} requests");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: impl Read + Write, log: &Mutex<Vec<Request>>, handler: &Arc<Handler>) {
    let Some(request) = read_request(&mut stream) else {
        return;
    };
    let at = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len() - 1
    };
    let reply = handler(&request);
    // The client may be gone; that is its right.
    let keeps = matches!(reply, Reply::Kept(..));
    let _ = match reply {
        Reply::Whole(status, headers, body) | Reply::Kept(status, headers, body) => {
            // A test may have taken the log meanwhile.
            if let Some(entry) = log.lock().unwrap().get_mut(at) {
                entry.answered = body.len();
            }
            let mut lines = vec![
                format!("HTTP/1.1 {status} X"),
                format!("connection: {}", if keeps { "keep-alive" } else { "close" }),
                format!("content-length: {}", body.len()),
            ];
            lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
            let head = lines.join("\r\n") + "\r\n\r\n";
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).and_then(
                |()| {
                    if keeps { stream.read(&mut [0; 1]).map(|_| ()) } else { Ok(()) }
                },
            )
        }
        Reply::Stall(content_type, start) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n\r\n");
            stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&start))
                .and_then(|()| stream.read(&mut [0; 1]).map(|_| ()))
        }
        Reply::Endless(content_type, start, piece) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n\r\n");
            stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&start))
                .map(|()| while stream.write_all(&piece).is_ok() {})
        }
    };
}

fn read_request(stream: &mut impl Read) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let method = words.next()?.to_owned();
    let target = words.next()?.to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut request =
        Request { method, path: path.into(), query: query.into(), ..Request::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        let header = (name.to_ascii_lowercase(), value.trim().to_owned());
        request.headers.push(header);
    }
    let length = request.header("content-length").unwrap_or("0");
    request.body = vec![0; length.parse().ok()?];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// Runs `git http-backend` for a request.
pub(crate) fn backend(root: &Path, request: &Request) -> Reply {
    let mut child = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", root)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROJECT_ROOT", root)
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", &request.path)
        .env("QUERY_STRING", &request.query)
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("CONTENT_TYPE", request.header("content-type").unwrap_or(""))
        .env("GIT_PROTOCOL", request.header("git-protocol").unwrap_or(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("these tests need the git command");
    let mut stdin = child.stdin.take().unwrap();
    // It reads no more than it needs.
    let _ = stdin.write_all(&request.body);
    drop(stdin);
    let output = child.wait_with_output().unwrap().stdout;
    let split = output.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let mut status = 200;
    let mut headers = Vec::new();
    for line in String::from_utf8_lossy(&output[..split]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        if name == "Status" {
            status = value[..3].parse().unwrap();
        } else {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    Reply::Whole(status, headers, output[split + 4..].to_vec())
}
