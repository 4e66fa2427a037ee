//! Real servers for tests: nginx before `git http-backend`, squid, and a small SOCKS5 proxy. A program that
//! is not there fails the test with its name.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a program may take until it listens.
const START: Duration = Duration::from_secs(90);

/// How often a program that lost its port to somebody else is started again.
const TRIES: usize = 5;

/// A program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(path: &str, args: &[&str], log: &Path) -> Program {
    assert!(Path::new(path).exists(), "these tests need {path}");
    let log = fs::File::options().create(true).append(true).open(log).unwrap();
    let child = Command::new(path)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {path}: {error}"));
    Program(child)
}

/// Starts a program on a port that is free, and waits until it listens there.
fn on_a_port(log: &Path, run: impl Fn(u16) -> Program) -> (u16, Program) {
    for _ in 0..TRIES {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut program = run(port);
        let begun = Instant::now();
        loop {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return (port, program);
            }
            if program.0.try_wait().unwrap().is_some() {
                break;
            }
            assert!(begun.elapsed() < START, "{}", fs::read_to_string(log).unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    panic!("{}", fs::read_to_string(log).unwrap());
}

/// A directory that programs of other users can use.
fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

/// An authority, and certificates by it.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    pub(crate) fn issue(&self, name: &str) -> Issued {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }
}

/// nginx before `git http-backend`.
pub(crate) struct Nginx {
    dir: tempfile::TempDir,
    port: u16,
    tls: bool,
    _programs: [Program; 2],
}

impl Nginx {
    /// Serves the repositories below a directory, over TLS with a certificate. The directives go into
    /// its server block.
    pub(crate) fn new(root: &Path, tls: Option<&Issued>, directives: &str) -> Self {
        let dir = open_dir();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let log = dir.path().join("output");
        let socket = at("fcgi");
        let cgi = start("/usr/sbin/fcgiwrap", &["-c", "4", "-s", &format!("unix:{socket}")], &log);
        let mut server = String::new();
        if let Some(Issued { certificate, key }) = tls {
            fs::write(at("server.pem"), certificate).unwrap();
            fs::write(at("server.key"), key).unwrap();
            let (certificate, key) = (at("server.pem"), at("server.key"));
            write!(server, "ssl_certificate {certificate}; ssl_certificate_key {key};").unwrap();
        }
        let (port, nginx) = on_a_port(&log, |port| {
            let listen = format!("127.0.0.1:{port}{}", if tls.is_some() { " ssl" } else { "" });
            let temporary: String = ["client_body", "fastcgi", "proxy", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {};\n", at(kind)))
                .concat();
            let text = format!(
                "daemon off; pid {pid}; error_log stderr; worker_processes 1; user root root;
                 events {{ worker_connections 64; }}
                 http {{
                   access_log {access} told;
                   {temporary}
                   server {{
                     listen {listen}; {server} {directives}
                     location / {{
                       fastcgi_pass unix:{socket};
                       fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
                       fastcgi_param GIT_PROJECT_ROOT {root};
                       fastcgi_param GIT_HTTP_EXPORT_ALL 1;
                       fastcgi_param PATH_INFO $uri;
                       fastcgi_param QUERY_STRING $query_string;
                       fastcgi_param REQUEST_METHOD $request_method;
                       fastcgi_param CONTENT_TYPE $content_type;
                       fastcgi_param CONTENT_LENGTH $content_length;
                       fastcgi_param REMOTE_ADDR $remote_addr;
                       fastcgi_param GIT_PROTOCOL $http_git_protocol;
                       fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;
                     }}
                   }}
                 }}",
                pid = at("pid"),
                access = at("access"),
                root = root.display(),
            );
            // Who asked with what.
            let text = text.replacen(
                "access_log",
                "log_format told '$request_uri [$http_authorization] [$ssl_client_verify]'; access_log",
                1,
            );
            fs::write(at("nginx.conf"), text).unwrap();
            start("/usr/sbin/nginx", &["-c", &at("nginx.conf"), "-p", &at("")], &log)
        });
        Self { dir, port, tls: tls.is_some(), _programs: [cgi, nginx] }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}/{path}", self.port)
    }

    /// What was asked, a line each: path, Authorization header, what became of the client certificate.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("access")).unwrap()
    }
}

/// A file of users as nginx and squid read it, with the password's hash by openssl.
pub(crate) fn users(name: &str, password: &str) -> (tempfile::TempDir, String) {
    let dir = open_dir();
    let hash = Command::new("openssl")
        .args(["passwd", "-apr1", password])
        .output()
        .expect("these tests need openssl");
    assert!(hash.status.success());
    let hash = String::from_utf8(hash.stdout).unwrap();
    let path = dir.path().join("users");
    fs::write(&path, format!("{name}:{hash}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    (dir, path.display().to_string())
}

/// A squid that connects to everything, for everybody or for who is in a file of users.
pub(crate) struct Squid {
    dir: tempfile::TempDir,
    pub(crate) port: u16,
    _program: Program,
}

impl Squid {
    /// `rules` are directives of its own, before the last one, which allows everything.
    pub(crate) fn new(users: Option<&str>, rules: &str) -> Self {
        Self::listening("http_port 127.0.0.1:PORT", users, rules)
    }

    /// One that is spoken to over TLS.
    pub(crate) fn with_tls(certificate: &Issued) -> Self {
        let dir = open_dir();
        let path = dir.path().join("proxy.pem");
        fs::write(&path, format!("{}{}", certificate.certificate, certificate.key)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let listen = format!("https_port 127.0.0.1:PORT tls-cert={}", path.display());
        Self::listening(&listen, None, "")
    }

    fn listening(listen: &str, users: Option<&str>, rules: &str) -> Self {
        let dir = open_dir();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let users = users.map_or(String::new(), |file| {
            format!(
                "auth_param basic program /usr/lib/squid/basic_ncsa_auth {file}\n\
                 auth_param basic children 2 startup=1 idle=1\n\
                 acl known proxy_auth REQUIRED\n\
                 http_access deny !known\n"
            )
        });
        let log = dir.path().join("output");
        let (port, program) = on_a_port(&log, |port| {
            let listen = listen.replace("PORT", &port.to_string());
            let text = format!(
                "{listen}\nvisible_hostname proxy.test\npid_filename {}\naccess_log stdio:{}\n\
                 cache_log {}\ncache deny all\ncache_mem 1 MB\nmemory_cache_shared off\n\
                 pinger_enable off\nmax_filedescriptors 256\nshutdown_lifetime 0 seconds\n\
                 coredump_dir {}\nforwarded_for delete\n{rules}\n{users}http_access allow all\n",
                at("pid"),
                at("access"),
                at("cache"),
                dir.path().display(),
            );
            fs::write(at("squid.conf"), text).unwrap();
            // The name of its shared memory is the machine's.
            let name = format!("plumb{port}");
            start("/usr/sbin/squid", &["-N", "-n", &name, "-f", &at("squid.conf")], &log)
        });
        Self { dir, port, _program: program }
    }

    /// What it was asked, as squid logs it.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("access")).unwrap_or_default()
    }
}

/// A SOCKS5 proxy (RFC 1928) with or without user name and password (RFC 1929), ended on drop.
pub(crate) struct Socks {
    pub(crate) port: u16,
    /// Whom it was to connect to.
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Socks {
    pub(crate) fn new(login: Option<(&'static str, &'static str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (log, ended) = (Arc::clone(&asked), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, log) = (stream.unwrap(), Arc::clone(&log));
                // Who goes away in the middle has its right to.
                std::thread::spawn(move || drop(socks(stream, login, &log)));
            }
        });
        Self { port, asked, stop }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Socks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn socks(
    mut stream: TcpStream,
    login: Option<(&str, &str)>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let take = |stream: &mut TcpStream, count: usize| {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).map(|()| bytes)
    };
    let head = take(&mut stream, 2)?;
    let methods = take(&mut stream, head[1].into())?;
    let method = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        return stream.write_all(&[5, 0xff]);
    }
    stream.write_all(&[5, method])?;
    if let Some((name, password)) = login {
        let length = take(&mut stream, 2)?[1];
        let given = take(&mut stream, length.into())?;
        let length = take(&mut stream, 1)?[0];
        let right = take(&mut stream, length.into())? == password.as_bytes();
        let right = right && given == name.as_bytes();
        stream.write_all(&[1, u8::from(!right)])?;
        if !right {
            return Ok(());
        }
    }
    let host = if take(&mut stream, 4)?[3] == 1 {
        take(&mut stream, 4)?.iter().map(u8::to_string).collect::<Vec<_>>().join(".")
    } else {
        let length = take(&mut stream, 1)?[0];
        String::from_utf8_lossy(&take(&mut stream, length.into())?).into_owned()
    };
    let port = take(&mut stream, 2)?;
    let port = u16::from_be_bytes([port[0], port[1]]);
    asked.lock().unwrap().push(format!("{host}:{port}"));
    // Names that only this proxy knows.
    let host = if host.ends_with(".inside") { "127.0.0.1" } else { &host };
    let Ok(server) = TcpStream::connect((host, port)) else {
        return stream.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    };
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    join(stream, server);
    Ok(())
}

/// Passes bytes on between two connections until both are done.
fn join(one: TcpStream, other: TcpStream) {
    let ways = [(one.try_clone().unwrap(), other.try_clone().unwrap()), (other, one)];
    let threads = ways.map(|(mut from, mut to)| {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}
