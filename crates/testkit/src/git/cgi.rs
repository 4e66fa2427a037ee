//! One run of `git http-backend`, as CGI (RFC 3875) wants it.

use crate::server::{Body, Cut};
use bytes::Bytes;
use futures::stream;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::io;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// Pieces in which a pack is passed on.
const PIECE: usize = 32 * 1024;

pub(super) async fn run(root: &Path, head: &Parts, body: Bytes) -> io::Result<Response<Body>> {
    let header = |name: &str| {
        head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().expect("stdin is piped");
    let output = child.stdout.take().expect("stdout is piped");
    // Written beside the reading: both pipes may fill.
    tokio::spawn(async move {
        let _closed = input.write_all(&body).await;
    });

    let mut output = BufReader::new(output);
    let mut response = Response::new(());
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).await? == 0 {
            return Err(io::Error::other("it ended without an answer"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            *response.status_mut() =
                StatusCode::from_bytes(code.as_bytes()).map_err(io::Error::other)?;
        } else {
            response.headers_mut().insert(
                HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?,
                HeaderValue::from_str(value).map_err(io::Error::other)?,
            );
        }
    }
    Ok(response.map(|()| pieces(child, output)))
}

/// The rest of the output. The child is killed when nobody reads on, and a child that failed in
/// the middle must not look like a whole answer.
fn pieces(child: Child, output: BufReader<ChildStdout>) -> Body {
    let frames = stream::try_unfold((child, output), |(mut child, mut output)| async move {
        let mut piece = vec![0; PIECE];
        let length = output.read(&mut piece).await.map_err(|_broken| Cut)?;
        if length > 0 {
            piece.truncate(length);
            return Ok(Some((Frame::data(Bytes::from(piece)), (child, output))));
        }
        match child.wait().await {
            Ok(status) if status.success() => Ok(None),
            _ => Err(Cut),
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}
