//! Real `gpg` and `ssh-keygen`, each with keys of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn run(command: &mut Command, input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("these tests need {command:?}: {error}"))?;
    // A program may end before it has read all.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input);
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A home of gpg. Its path is short: there is a socket in it.
pub(crate) struct Gpg {
    home: tempfile::TempDir,
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let kill = ["--kill", "gpg-agent"];
        let _ = Command::new("gpgconf").env("GNUPGHOME", self.home.path()).args(kill).status();
    }
}

impl Gpg {
    pub(crate) fn new() -> Self {
        let home = tempfile::Builder::new().prefix("g").tempdir_in("/tmp").unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(home.path(), private).unwrap();
        Self { home }
    }

    pub(crate) fn try_run(&self, args: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
        let mut command = Command::new("gpg");
        let always = ["--batch", "--yes", "--no-tty", "--pinentry-mode", "loopback"];
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("GNUPGHOME", self.home.path()).args(always).args(["--passphrase", ""]);
        run(command.args(args), input)
    }

    pub(crate) fn run(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        self.try_run(args, input).unwrap()
    }

    /// Makes a key and returns its fingerprint.
    pub(crate) fn key(&self, user: &str, algorithm: &str, usage: &str, expire: &str) -> String {
        self.run(&["--quick-gen-key", user, algorithm, usage, expire], b"");
        let listed = self.run(&["--with-colons", "--list-keys", user], b"");
        let listed = String::from_utf8(listed).unwrap();
        let line = listed.lines().find(|line| line.starts_with("fpr")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    pub(crate) fn export(&self, key: &str) -> Vec<u8> {
        self.run(&["--armor", "--export", key], b"")
    }

    /// Signs as git has it done.
    pub(crate) fn sign(&self, key: &str, more: &[&str], payload: &[u8]) -> String {
        let mut args = more.to_vec();
        args.extend(["-bsau", key]);
        String::from_utf8(self.run(&args, payload)).unwrap()
    }

    /// Answers the questions of a command.
    pub(crate) fn edit(&self, key: &str, answers: &str) {
        let mut command = Command::new("gpg");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("GNUPGHOME", self.home.path());
        command.args(["--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""]);
        command.args(["--expert", "--command-fd", "0", "--edit-key", key]);
        run(&mut command, answers.as_bytes()).unwrap();
    }

    /// A certificate that revokes a key, as gpg keeps one for each.
    pub(crate) fn revocation(&self, key: &str) -> String {
        let path = self.home.path().join(format!("openpgp-revocs.d/{key}.rev"));
        // A colon keeps people from importing it by mistake.
        std::fs::read_to_string(path).unwrap().replace(":-----", "-----")
    }

    /// A program that git can call.
    pub(crate) fn program(&self) -> PathBuf {
        let path = self.home.path().join("run");
        let home = self.home.path().display();
        let text = format!(
            "#!/bin/sh\nexec gpg --homedir {home} --batch --passphrase '' \\\n  --pinentry-mode loopback \"$@\"\n"
        );
        std::fs::write(&path, text).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&path, private).unwrap();
        path
    }
}

/// Makes a key of ssh-keygen, and returns the file of its private part.
pub(crate) fn ssh_key(dir: &Path, name: &str, kind: &str, bits: &str) -> Result<PathBuf, String> {
    let path = dir.join(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-C", name, "-t", kind, "-b", bits, "-f"]).arg(&path);
    run(&mut command, b"").map(|_| path)
}

/// The public part of a key.
pub(crate) fn ssh_public(key: &Path) -> String {
    std::fs::read_to_string(key.with_extension("pub")).unwrap()
}

/// Has an authority vouch for a key, and returns the file of the certificate.
pub(crate) fn ssh_certificate(authority: &Path, key: &Path) -> PathBuf {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-I", "somebody", "-n", "git", "-s"]).arg(authority);
    run(command.arg(key.with_extension("pub")), b"").unwrap();
    PathBuf::from(format!("{}-cert.pub", key.display()))
}

/// Signs as git has it done.
pub(crate) fn ssh_sign(key: &Path, namespace: &str, more: &[&str], payload: &[u8]) -> String {
    let mut command = Command::new("ssh-keygen");
    command.args(["-Y", "sign", "-n", namespace, "-f"]).arg(key).args(more);
    String::from_utf8(run(&mut command, payload).unwrap()).unwrap()
}
