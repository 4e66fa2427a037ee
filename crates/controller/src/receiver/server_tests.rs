use std::sync::atomic::{AtomicBool, Ordering};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::receiver::address::Address;

const SECRET: &str = "a secret of the tests";

/// Follows one repository.
#[derive(Default)]
struct Follower {
    secrets: Mutex<Option<Arc<Secrets>>>,
    standby: AtomicBool,
    asked: Mutex<Vec<News>>,
    counted: Mutex<Vec<(Service, Outcome)>>,
}

impl Hooks for Follower {
    fn secrets(&self) -> Option<Arc<Secrets>> {
        lock(&self.secrets).clone()
    }

    fn is_open(&self) -> bool {
        !self.standby.load(Ordering::Relaxed)
    }

    fn take(&self, news: &News) -> usize {
        lock(&self.asked).push(news.clone());
        usize::from(news.is_of(&Address::parse(URL).unwrap()))
    }

    fn count(&self, service: Service, outcome: Outcome) {
        lock(&self.counted).push((service, outcome));
    }
}

const URL: &str = "https://git.example/org/repo";
const BODY: &str = r#"{"url": "git@git.example:org/repo.git", "ref": "refs/heads/main"}"#;

struct Running {
    address: SocketAddr,
    follower: Arc<Follower>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start() -> Running {
    let follower = Arc::new(Follower::default());
    *lock(&follower.secrets) = Some(Arc::new(Secrets::new([SECRET])));
    let receiver = Receiver::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = receiver.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let hooks = Arc::clone(&follower);
    let task = tokio::spawn(receiver.serve(hooks, async {
        let _ = stopped.await;
    }));
    Running { address, follower, stop, task }
}

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn send(&self, request: &[u8]) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        reply(stream).await
    }

    /// A hook of the generic form with this signature.
    async fn generic(&self, body: &[u8], signature: &str) -> Reply {
        self.send(&request("/hook/generic", &[("X-Signature", signature)], body)).await
    }

    fn outcomes(&self) -> Vec<Outcome> {
        lock(&self.follower.counted).iter().map(|(_, outcome)| *outcome).collect()
    }

    fn asked(&self) -> usize {
        lock(&self.follower.asked).len()
    }
}

async fn reply(mut stream: TcpStream) -> Reply {
    let mut answer = Vec::new();
    // A server that closes while something is unread resets the connection after its answer.
    let read = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        panic!("{read:?}: {answer:?}");
    };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn request(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let headers: String =
        headers.iter().flat_map(|(name, value)| [*name, ": ", *value, "\r\n"]).collect();
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: plumb\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn sign(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    let bytes = mac.finalize().into_bytes();
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hex: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
    format!("sha256={hex}")
}

#[tokio::test]
async fn a_signed_hook_is_handed_on_and_no_other_one() {
    let server = start().await;
    let (body, signature) = (BODY.as_bytes(), sign(BODY.as_bytes()));
    let reply = server.generic(body, &signature).await;
    assert_eq!((reply.status, reply.body.as_str()), (202, "accepted\n"));
    assert!(reply.head.contains("connection: close"), "{reply:?}");
    // Whether somebody follows it is not told.
    let other = BODY.replace("org/repo", "org/other");
    let reply = server.generic(other.as_bytes(), &sign(other.as_bytes())).await;
    assert_eq!((reply.status, reply.body.as_str()), (202, "accepted\n"));
    assert_eq!(server.outcomes(), [Outcome::Asked, Outcome::Nobody]);
    assert_eq!(server.asked(), 2);
    // Nobody learns what is wrong with a signature.
    let wrong = sign(b"something else");
    let mut refused = Vec::new();
    for (body, signature) in
        [(body, &*wrong), (body, "sha256="), (body, ""), (b"", &*wrong), (b"}", &*wrong)]
    {
        refused.push(server.generic(body, signature).await);
    }
    refused.push(server.send(&request("/hook/generic", &[], body)).await);
    refused.push(server.send(&request("/hook/github", &[("X-Signature", &signature)], body)).await);
    for reply in &refused {
        assert_eq!((reply.status, &reply.body), (401, &refused[0].body), "{reply:?}");
    }
    assert_eq!(server.asked(), 2, "none of them");
    assert_eq!(server.outcomes()[2..], [Outcome::Unsigned; 7]);
}

#[tokio::test]
async fn only_hooks_are_taken() {
    let server = start().await;
    let body = BODY.as_bytes();
    let signature = sign(body);
    let signed = ("X-Signature", signature.as_str());
    for (status, request) in [
        (404, request("/", &[signed], body)),
        (404, request("/metrics", &[signed], body)),
        (404, request("/hook/", &[signed], body)),
        (404, request("/hook/other", &[signed], body)),
        (404, request("/hook/generic/", &[signed], body)),
        (405, b"GET /hook/generic HTTP/1.1\r\nHost: p\r\n\r\n".to_vec()),
        (405, b"PUT /hook/generic HTTP/1.1\r\nHost: p\r\nContent-Length: 1\r\n\r\nx".to_vec()),
        (415, request("/hook/generic", &[signed, ("Content-Encoding", "gzip")], body)),
        (415, request("/hook/generic", &[signed, ("Content-Type", "text/plain")], body)),
        (202, request("/hook/generic?x=y", &[signed, ("Content-Encoding", "identity")], body)),
        (
            202,
            request(
                "/hook/generic",
                &[signed, ("Content-Type", "Application/JSON; charset=UTF-8")],
                body,
            ),
        ),
    ] {
        let reply = server.send(&request).await;
        assert_eq!(reply.status, status, "{reply:?} to {}", String::from_utf8_lossy(&request));
    }
    // GitHub's other content type is refused with what to do about it.
    let form = [
        ("X-Hub-Signature-256", &*signature),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let reply = server.send(&request("/hook/github", &form, b"payload=%7B%7D")).await;
    assert_eq!(reply.status, 415);
    assert!(reply.body.contains("application/json"), "{reply:?}");
    // What the signature holds for, but is no hook.
    let reply = server.generic(b"{}", &sign(b"{}")).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn tests_of_the_connection_and_other_events_are_answered_and_do_nothing() {
    let server = start().await;
    let ping = br#"{"zen": "Design for failure."}"#;
    let signature = sign(ping);
    let github = |event| [("X-GitHub-Event", event), ("X-Hub-Signature-256", signature.as_str())];
    for event in ["ping", "issues"] {
        let reply = server.send(&request("/hook/github", &github(event), ping)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let test = [("X-Event-Key", "diagnostics:ping")];
    let reply = server.send(&request("/hook/bitbucket", &test, br#"{"test": true}"#)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let push = [("X-Event-Key", "repo:push")];
    let reply = server.send(&request("/hook/bitbucket", &push, br#"{"test": true}"#)).await;
    assert_eq!(reply.status, 401, "{reply:?}");
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_delivery_that_comes_again_asks_nobody() {
    let server = start().await;
    let body = br#"{"ref": "refs/heads/main", "repository": {"clone_url": "https://git.example/org/repo"}}"#;
    let signature = sign(body);
    let push = |id| {
        let headers = [
            ("X-GitHub-Event", "push"),
            ("X-Hub-Signature-256", signature.as_str()),
            ("X-GitHub-Delivery", id),
        ];
        request("/hook/github", &headers, body)
    };
    for (id, status) in [("a", 202), ("a", 200), ("b", 202), ("b", 200), ("a", 200)] {
        assert_eq!(server.send(&push(id)).await.status, status, "{id}");
    }
    assert_eq!(server.asked(), 2);
    // One that was not taken may come again.
    server.follower.standby.store(true, Ordering::Relaxed);
    assert_eq!(server.send(&push("c")).await.status, 503);
    server.follower.standby.store(false, Ordering::Relaxed);
    assert_eq!(server.send(&push("c")).await.status, 202);
    // The generic form has no ids: each one counts.
    for _ in 0..2 {
        assert_eq!(server.generic(BODY.as_bytes(), &sign(BODY.as_bytes())).await.status, 202);
    }
    assert_eq!(server.asked(), 5);
}

#[tokio::test]
async fn nothing_is_taken_without_a_secret_and_by_a_standby() {
    let server = start().await;
    let (body, signature) = (BODY.as_bytes(), sign(BODY.as_bytes()));
    server.follower.standby.store(true, Ordering::Relaxed);
    let reply = server.generic(body, &signature).await;
    assert_eq!(reply.status, 503);
    assert!(reply.head.contains("retry-after: 10"), "{reply:?}");
    server.follower.standby.store(false, Ordering::Relaxed);
    *lock(&server.follower.secrets) = None;
    let reply = server.generic(body, &signature).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    *lock(&server.follower.secrets) = Some(Arc::default());
    assert_eq!(server.generic(body, &signature).await.status, 401);
    assert_eq!(server.asked(), 0);
    *lock(&server.follower.secrets) = Some(Arc::new(Secrets::new(["another one, longer", SECRET])));
    assert_eq!(server.generic(body, &signature).await.status, 202);
}

#[tokio::test]
async fn wrong_signatures_are_slowed_down_and_keep_nobody_else_out() {
    let server = start().await;
    let (body, signature) = (BODY.as_bytes(), sign(BODY.as_bytes()));
    let mut statuses = Vec::new();
    for _ in 0..3 * FAILURES {
        let reply = server.generic(body, "sha256=").await;
        let waits =
            reply.head.contains("retry-after: 1\r\n") || reply.head.ends_with("retry-after: 1");
        assert_eq!(waits, reply.status == 429, "{reply:?}");
        statuses.push(reply.status);
    }
    assert!(statuses[..FAILURES as usize].iter().all(|status| *status == 401), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(server.generic(body, &signature).await.status, 202);
}

/// A body of this size, padded where it does not matter.
fn padded(size: usize) -> Vec<u8> {
    let mut body = BODY.strip_suffix('}').unwrap().as_bytes().to_vec();
    body.extend_from_slice(b", \"x\": \"");
    body.resize(size - 2, b'x');
    body.extend_from_slice(b"\"}");
    body
}

#[tokio::test]
async fn the_largest_body_is_taken_and_no_larger_one() {
    let server = start().await;
    let largest = padded(MOST_BYTES);
    assert_eq!(server.generic(&largest, &sign(&largest)).await.status, 202);
    let mut head = request("/hook/generic", &[("X-Signature", &sign(b""))], b"");
    let end = format!("Content-Length: {}\r\n\r\n", MOST_BYTES + 1);
    head.truncate(head.len() - "Content-Length: 0\r\n\r\n".len());
    let mut stream = server.connect().await;
    stream.write_all(&[&head, end.as_bytes()].concat()).await.unwrap();
    assert_eq!(reply(stream).await.status, 413, "before any of it comes");
    // One that does not say how long it is.
    let mut stream = server.connect().await;
    stream.write_all(&[&head, &b"Transfer-Encoding: chunked\r\n\r\n"[..]].concat()).await.unwrap();
    let chunk = [&b"100000\r\n"[..], &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let (mut from, mut to) = stream.into_split();
    let sending = tokio::spawn(async move {
        // Until nobody takes it any more.
        while to.write_all(&chunk).await.is_ok() {}
    });
    let mut answer = vec![0; 12];
    from.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    drop(from);
    sending.await.unwrap();
}

#[tokio::test]
async fn large_bodies_share_their_room_and_small_ones_need_none() {
    let server = start().await;
    let body = padded(20 << 20);
    let signature = sign(&body);
    let whole = request("/hook/generic", &[("X-Signature", &signature)], &body);
    let (most, rest) = whole.split_at(whole.len() - 1);
    let mut first = server.connect().await;
    first.write_all(most).await.unwrap();
    // The first holds its room as soon as the server has read what was written; then there is not
    // enough for this one.
    let second = padded(9 << 19);
    let second = request("/hook/generic", &[("X-Signature", &sign(&second))], &second);
    let refused = loop {
        let reply = server.send(&second).await;
        if reply.status != 202 {
            break reply;
        }
    };
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(server.generic(BODY.as_bytes(), &sign(BODY.as_bytes())).await.status, 202);
    first.write_all(rest).await.unwrap();
    assert_eq!(reply(first).await.status, 202);
    assert_eq!(server.send(&whole).await.status, 202, "the room is free again");
}

#[tokio::test]
async fn strangers_with_large_bodies_keep_no_small_hook_out() {
    let follower = Arc::new(Follower::default());
    *lock(&follower.secrets) = Some(Arc::new(Secrets::new([SECRET])));
    let desk = Arc::new(Desk::new(follower));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let send = async |size: usize| {
        let body = padded(size);
        let request = request("/hook/generic", &[("X-Signature", &sign(&body))], &body);
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        tokio::spawn(converse(accepted, Arc::clone(&desk)));
        stream.write_all(&request).await.unwrap();
        reply(stream).await.status
    };
    // Bodies whose signatures are not known to be wrong yet have all the room there is.
    let strangers = desk.memory.try_acquire_many(u32::try_from(SHARED_STEPS).unwrap()).unwrap();
    assert_eq!(send(FREE_BYTES + 1).await, 503);
    assert_eq!(send(FREE_BYTES).await, 202);
    drop(strangers);
    assert_eq!(send(FREE_BYTES + 1).await, 202);
}

#[tokio::test]
async fn headers_have_limits() {
    let server = start().await;
    let many: Vec<(&str, &str)> = vec![("X-More", "x"); HEADERS + 1];
    assert_eq!(server.send(&request("/hook/generic", &many, b"")).await.status, 431);
    let long = "x".repeat(2 * HEADER_BYTES);
    assert_eq!(server.send(&request("/hook/generic", &[("X-Long", &long)], b"")).await.status, 431);
}

#[tokio::test]
async fn who_is_slow_is_cut_off() {
    let server = start().await;
    // Its headers never end.
    let mut headers = server.connect().await;
    headers.write_all(b"POST /hook/generic HTTP/1.1\r\nX-Slow: ").await.unwrap();
    // Its body never ends.
    let mut body = server.connect().await;
    let signature = sign(BODY.as_bytes());
    let whole = request("/hook/generic", &[("X-Signature", &signature)], BODY.as_bytes());
    body.write_all(&whole[..whole.len() - 1]).await.unwrap();
    // It says nothing at all.
    let mut silent = server.connect().await;
    assert_eq!(server.generic(BODY.as_bytes(), &signature).await.status, 202);
    // From here on only time passes, and it passes at once.
    tokio::time::pause();
    let mut answer = Vec::new();
    let _ = headers.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{answer:?}");
    assert_eq!(reply(body).await.status, 408);
    answer.clear();
    let _ = silent.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{answer:?}");
}

#[tokio::test]
async fn who_holds_every_connection_holds_them_for_a_while_only() {
    let server = start().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = server.connect().await;
        stream.write_all(b"POST /hook/generic HTTP/1.1\r\n").await.unwrap();
        held.push(stream);
    }
    let mut stream = server.connect().await;
    let signature = sign(BODY.as_bytes());
    let whole = request("/hook/generic", &[("X-Signature", &signature)], BODY.as_bytes());
    stream.write_all(&whole).await.unwrap();
    assert!(server.outcomes().is_empty());
    let before = now();
    tokio::time::pause();
    assert_eq!(reply(stream).await.status, 202);
    assert!(now() - before <= CONNECTION_TIME);
}

#[tokio::test]
async fn a_stop_ends_it_whatever_a_client_does() {
    let server = start().await;
    let mut idle = server.connect().await;
    idle.write_all(b"POST /hook/generic HTTP/1.1\r\n").await.unwrap();
    let signature = sign(BODY.as_bytes());
    assert_eq!(server.generic(BODY.as_bytes(), &signature).await.status, 202);
    tokio::time::pause();
    server.stop.send(()).unwrap();
    server.task.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
