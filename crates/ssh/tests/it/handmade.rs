//! A server that goes as far as to prove its key, with the algorithm that a test wants. Real ones do so
//! with none but the one that was agreed on.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plumb_ssh::Server;
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;

const ID: &str = "SSH-2.0-handmade";

/// Starts it, with an RSA key of its own. Returns its line of known hosts, too.
pub(crate) fn server(algorithm: &'static str, hash: &'static str) -> (Server, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-C", "", "-f"])
        .arg(&path)
        .status()
        .expect("these tests need ssh-keygen");
    assert!(made.success());
    let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let key = STANDARD.decode(public.split_whitespace().nth(1).unwrap()).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        // Who goes away in the middle has its right to.
        let _gone = greet(stream, &key, |hashed| {
            let signed = sign(dir.path(), hash, hashed);
            [string(algorithm.as_bytes()), string(&signed)].concat()
        });
    });
    let server = Server { host: "127.0.0.1".into(), port, user: "git".into() };
    (server, format!("[127.0.0.1]:{port} {public}"))
}

fn sign(dir: &Path, hash: &str, message: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(["dgst", hash, "-sign"])
        .arg(dir.join("key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("these tests need openssl");
    child.stdin.take().unwrap().write_all(message).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// Speaks as RFC 4253 and RFC 8731 have it, up to the new keys.
fn greet(stream: TcpStream, key: &[u8], prove: impl Fn(&[u8]) -> Vec<u8>) -> std::io::Result<()> {
    let mut to = stream.try_clone()?;
    let mut from = BufReader::new(stream);
    to.write_all(format!("{ID}\r\n").as_bytes())?;
    let mut id = String::new();
    from.read_line(&mut id)?;

    let ciphers = "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes256-ctr";
    let macs = "hmac-sha2-256,hmac-sha2-512";
    let lists = [
        "curve25519-sha256",
        "rsa-sha2-512,rsa-sha2-256",
        ciphers,
        ciphers,
        macs,
        macs,
        "none",
        "none",
        "",
        "",
    ];
    let lists = lists.map(|names| string(names.as_bytes())).concat();
    let ours = [&[20][..], &[7; 16], &lists, &[0; 5]].concat();
    send(&mut to, &ours)?;
    let theirs = receive(&mut from)?;
    let init = receive(&mut from)?;
    assert_eq!((theirs[0], init[0]), (20, 30));
    let point = init[5..].to_vec();

    let secret = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).unwrap();
    let public = secret.compute_public_key().unwrap();
    let other = UnparsedPublicKey::new(&X25519, &point);
    let shared = agree_ephemeral(secret, &other, <[u8]>::to_vec).unwrap();
    let hashed = [
        string(id.trim_end().as_bytes()),
        string(ID.as_bytes()),
        string(&theirs),
        string(&ours),
        string(key),
        string(&point),
        string(public.as_ref()),
        number(&shared),
    ];
    let proof = prove(digest(&SHA256, &hashed.concat()).as_ref());
    let parts = [vec![31], string(key), string(public.as_ref()), string(&proof)];
    send(&mut to, &parts.concat())?;
    send(&mut to, &[21])?;
    // The client's own new keys, and its first word behind them.
    receive(&mut from)?;
    from.read_exact(&mut [0; 4])
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[..], bytes].concat()
}

/// A whole number that is not negative.
fn number(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let bytes = &bytes[first..];
    if bytes.first().is_some_and(|byte| *byte >= 0x80) {
        return string(&[&[0], bytes].concat());
    }
    string(bytes)
}

fn send(to: &mut TcpStream, payload: &[u8]) -> std::io::Result<()> {
    // Length, number of padding bytes, payload and padding are a multiple of eight.
    let padding = 8 - (payload.len() + 5) % 8 + 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap().to_be_bytes();
    let count = u8::try_from(padding).unwrap();
    to.write_all(&[&length[..], &[count], payload, &vec![0; padding]].concat())
}

fn receive(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut packet = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    from.read_exact(&mut packet)?;
    let end = packet.len() - usize::from(packet[0]);
    Ok(packet[1..end].to_vec())
}
