//! What a Git server or the way to it can do wrong. Each is told, takes nothing of what was applied,
//! and is over when it is over.

use plumb_testkit::{Change, Fault, GitServer, Match, Proxy, Rule, runtime};
use serde_json::json;

use crate::world::{World, condition, config_map};

/// Decides nothing here: no rule has a probability.
const SEED: u64 = 1;

/// More than a repository may have in one file.
const TOO_LARGE: usize = (256 << 20) + 1;

const RESULT: &str = "application/x-git-upload-pack-result";

/// What goes wrong.
enum Trouble {
    /// The proxy does this to these requests.
    Rule(Match, Fault),
    /// The proxy closes its port.
    Closed,
    /// The server is slow in this way, and has two seconds.
    Slow(fn(&GitServer, bool)),
    /// The server wants another password.
    Password,
    /// The URL is another one.
    Url(String),
    /// What is pushed has this in it.
    Push(Change),
}

/// What goes wrong, and the reason and words by which it is told.
struct Row(&'static str, Trouble, &'static str, Vec<String>);

/// A pack in its side band, as the answer to a fetch.
fn fetched(pack: &[u8]) -> Fault {
    let mut body = b"000dpackfile\n".to_vec();
    for piece in pack.chunks(60_000) {
        body.extend(format!("{:04x}\x01", piece.len() + 5).bytes());
        body.extend(piece);
    }
    body.extend(b"0000");
    respond(200, &[("content-type", RESULT)], body)
}

fn respond(code: u16, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Fault {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Fault::Respond { code, headers, body: body.into() }
}

fn to(location: &str) -> Fault {
    respond(302, &[("location", location)], "")
}

/// Content as zlib stores it when it compresses nothing.
fn stored(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    let (mut one, mut two) = (1_u32, 0_u32);
    for byte in content {
        one = (one + u32::from(*byte)) % 65521;
        two = (two + one) % 65521;
    }
    let (length, inverse) = (length.to_le_bytes(), (!length).to_le_bytes());
    let sum = (two << 16 | one).to_be_bytes();
    [&[0x78, 1, 1][..], &length, &inverse, content, &sum].concat()
}

/// A number in groups of seven bits, the lowest first.
fn groups(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        bytes.push(if number > 0 { low | 0x80 } else { low });
        if number == 0 {
            return bytes;
        }
    }
}

/// An entry of a pack: its kind and size, what stands before its data, and its data.
fn entry(kind: u8, before: &[u8], content: &[u8]) -> Vec<u8> {
    let size = content.len() as u64;
    let mut head = vec![kind << 4 | u8::try_from(size & 15).unwrap()];
    if size >> 4 > 0 {
        head[0] |= 0x80;
        head.extend(groups(size >> 4));
    }
    [&head[..], before, &stored(content)].concat()
}

/// A few kilobytes that say to copy sixty of them two thousand times.
fn delta_bomb() -> Vec<u8> {
    const PIECE: usize = 0xf000;
    const TIMES: usize = 2000;
    let base = entry(3, &[], &vec![0; PIECE]);
    let copy = [0xa0_u8, 0xf0];
    let sizes = [groups(PIECE as u64), groups((PIECE * TIMES) as u64)].concat();
    let delta = [sizes, copy.repeat(TIMES)].concat();
    // By the distance to its base, which is written so that no number has two forms.
    let (low, high) = (base.len() & 0x7f, base.len() >> 7);
    let (middle, high) = ((high - 1) & 0x7f, (high - 1) >> 7);
    let distance = [high - 1, middle, low].map(|group| u8::try_from(group).unwrap());
    let distance = [distance[0] | 0x80, distance[1] | 0x80, distance[2]];
    let bomb = entry(6, &distance, &delta);
    [&b"PACK\0\0\0\x02\0\0\0\x02"[..], &base, &bomb, &[0; 20]].concat()
}

/// Text that cannot be made small, so that a pack has a middle.
fn noise(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.alphanumeric()).take(60_000).collect()
}

/// Who asks, and where others would have to.
struct Hosts {
    proxy: Proxy,
    /// Has the repository, too, for the same user with the same password.
    elsewhere: GitServer,
    secure: GitServer,
}

fn rows(hosts: &Hosts) -> Vec<Row> {
    let all = Match::any;
    let fetch = || Match::method("POST").body("command=fetch");
    let status = |code| Trouble::Rule(all(), Fault::Status { code, retry_after: None });
    let row = |what, trouble, reason, words: &[&str]| {
        Row(what, trouble, reason, words.iter().map(|word| (*word).to_owned()).collect())
    };
    let refs = |url: &str| format!("{url}/info/refs?service=git-upload-pack");
    let own = refs(&hosts.proxy.through(&hosts.elsewhere.url("repo")));
    let away = refs(&hosts.elsewhere.url("repo"));
    let host = hosts.elsewhere.base().replace("http://", "");
    let unknown = format!("{}.invalid", "a".repeat(64));
    vec![
        row("a slow loris", Trouble::Slow(GitServer::drip), "Timeout", &["timed out"]),
        row("no answer", Trouble::Slow(GitServer::stall), "Timeout", &["timed out"]),
        row("a closed port", Trouble::Closed, "ConnectionRefused", &["refused the connection"]),
        row("a cut at once", Trouble::Rule(all(), Fault::CutBefore), "ConnectionBroken", &[]),
        row(
            "a cut in the middle of a pack",
            Trouble::Rule(fetch(), Fault::CutBody(20_000)),
            "ConnectionBroken",
            &["the connection to 127.0.0.1:"],
        ),
        row(
            "half an answer",
            Trouble::Rule(fetch(), Fault::EndBody(20_000)),
            "ProtocolError",
            &["the Git server"],
        ),
        row(
            "a truncated pack",
            Trouble::Rule(fetch(), fetched(&delta_bomb()[..1000])),
            "ProtocolError",
            &["the Git server"],
        ),
        row(
            "a corrupted pack",
            Trouble::Rule(fetch(), Fault::Damage(20_000)),
            "ProtocolError",
            &["the Git server"],
        ),
        row(
            "a delta bomb",
            Trouble::Rule(fetch(), fetched(&delta_bomb())),
            "RepositoryTooLarge",
            &["bytes of one object", "keep manifests in a repository of their own"],
        ),
        row(
            "a repository beyond the limit",
            Trouble::Push(Change::File("large".into(), vec![0; TOO_LARGE])),
            "RepositoryTooLarge",
            &["bytes of one object", "268435456"],
        ),
        row(
            "a circle of redirects",
            Trouble::Rule(all(), to(&own)),
            "RedirectRefused",
            &["more than 5 redirects"],
        ),
        row(
            "a redirect to another host",
            Trouble::Rule(all(), to(&away)),
            "RedirectRefused",
            &[&format!("it leads to {host}, which wants credentials")],
        ),
        row(
            "a redirect to a file",
            Trouble::Rule(all(), to("file:///etc/info/refs?service=git-upload-pack")),
            "RedirectRefused",
            &["is not https"],
        ),
        row(
            "another password",
            Trouble::Password,
            "AuthenticationFailed",
            &["answered 401", "were not accepted"],
        ),
        row("401", status(401), "AuthenticationFailed", &["answered 401"]),
        row("403", status(403), "AuthenticationFailed", &["answered 403"]),
        row("404", status(404), "RepositoryNotFound", &["was not found", "check the url"]),
        row("429", status(429), "ServerError", &["429"]),
        row("500", status(500), "ServerError", &["500"]),
        row("503", status(503), "ServerError", &["503"]),
        row(
            "a web page",
            Trouble::Rule(all(), respond(200, &[("content-type", "text/html")], "<html>")),
            "NotAGitRepository",
            &["it is a web page"],
        ),
        row(
            "a name that is not known",
            Trouble::Url(format!("http://{unknown}/repo.git")),
            "UnknownHost",
            &[&unknown, "cannot be resolved"],
        ),
        row(
            "a certificate that nobody vouches for",
            Trouble::Url(hosts.secure.url("repo")),
            "TLSFailed",
            &["no trusted TLS connection", "ca.crt"],
        ),
    ]
}

/// Nothing is looked at within the hour but what is asked for here.
#[test]
fn each_fault_is_told_and_is_over_when_it_is_over() {
    runtime().block_on(async {
        let world = World::new("faults").await;
        let hosts = Hosts {
            proxy: Proxy::to_http(&world.git.base(), SEED).await,
            elsewhere: GitServer::start().await,
            secure: GitServer::start_tls().await,
        };
        let rows = rows(&hosts);
        let hand = |row: usize| format!("row-{row}");
        // One for each row: what is put back again and again is put back ever more slowly.
        let held: Vec<(String, String)> = (0..rows.len())
            .map(|row| (format!("app/row-{row}.yaml"), config_map(&hand(row), "held")))
            .collect();
        let held: Vec<_> = held.iter().map(|(path, text)| (&**path, Some(&**text))).collect();
        world.repo.commit(&held, "held");
        let push = |number: usize, more: &[Change]| {
            let file = |path: &str, text: String| Change::File(path.into(), text.into_bytes());
            let a = config_map("a", &number.to_string());
            let files = [file("app/a.yaml", a), file("noise", noise(number as u64))];
            world.repo.commit_changes(&[&files[..], more].concat(), "a change")
        };
        hosts.elsewhere.repo("repo").commit(&held, "the same");
        for git in [&world.git, &hosts.elsewhere] {
            git.require("repo", "robot", "hunter2");
        }
        let mut last = (0, push(0, &[]));

        let _agent = world.agent();
        let login = json!({"username": "robot", "password": "hunter2"});
        world.apply(&world.secret("git", &login)).await;
        let mut source = world.source("1h");
        let url = hosts.proxy.through(&world.git.url("repo"));
        source["spec"]["url"] = json!(url);
        source["spec"]["secretRef"] = json!({"name": "git"});
        world.apply(&source).await;
        world.apply(&world.app("web", "app", "1h")).await;
        world.wait_applied("web", &last.1).await;
        let sources = world.sources();
        let spec = async |field: &str, value: &str| {
            world.edit(&sources, "repo", &json!({"spec": {field: value}})).await;
        };

        for (row, Row(what, trouble, reason, words)) in rows.iter().enumerate() {
            println!("{what}:");
            let mut next = (row + 1, push(row + 1, &[]));
            let mut rule = None;
            match trouble {
                Trouble::Rule(when, fault) => {
                    rule = Some(hosts.proxy.add(Rule::new(when.clone(), fault.clone())));
                }
                Trouble::Closed => hosts.proxy.stop().await,
                Trouble::Slow(slow) => {
                    slow(&world.git, true);
                    spec("timeout", "2s").await;
                }
                Trouble::Password => world.git.require("repo", "robot", "another"),
                Trouble::Url(url) => spec("url", url).await,
                Trouble::Push(change) => next.1 = push(row + 1, std::slice::from_ref(change)),
            }
            world.look().await;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let object = world.wait_refused(&sources, "repo", reason, &words).await;
            assert_eq!(condition(&object, "Fetched")["reason"], *reason, "{what}");
            assert_eq!(object["status"]["revision"], format!("main@sha1:{}", last.1), "{what}");
            if let Some(rule) = rule {
                assert!(hosts.proxy.hits(rule) > 0, "{what}");
            }

            // What was applied last stays, and stays enforced.
            let by_hand = json!({"data": {"value": "by hand"}});
            world.edit(&world.config_maps(), &hand(row), &by_hand).await;
            world.wait_value(&hand(row), "held").await;
            assert_eq!(world.data("a").await.unwrap()["value"], last.0.to_string(), "{what}");

            match trouble {
                Trouble::Rule(..) => hosts.proxy.clear(),
                Trouble::Closed => hosts.proxy.restart().await,
                Trouble::Slow(slow) => {
                    slow(&world.git, false);
                    spec("timeout", "60s").await;
                }
                Trouble::Password => world.git.require("repo", "robot", "hunter2"),
                Trouble::Url(_) => spec("url", &url).await,
                Trouble::Push(_) => {
                    next.1 = push(row + 1, &[Change::Delete("large".into())]);
                }
            }
            world.look().await;
            world.wait_applied("web", &next.1).await;
            world.wait_value("a", &next.0.to_string()).await;
            last = next;
        }
        // It was asked, and was not shown what it would have taken.
        let asked = hosts.elsewhere.requests();
        assert!(!asked.is_empty());
        assert!(asked.iter().all(|request| request.status == Some(401)), "{asked:?}");
    });
}
