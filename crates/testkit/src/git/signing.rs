//! Commits and tags that are signed with SSH keys.

use std::path::PathBuf;
use std::process::Command;

use super::Repo;
use crate::scratch::Scratch;

/// A pair of keys of `ssh-keygen`, which goes with this value.
#[derive(Debug)]
pub struct SshKey {
    name: String,
    path: PathBuf,
    _dir: Scratch,
}

impl SshKey {
    /// A new pair of somebody.
    ///
    /// # Panics
    /// Where there is no `ssh-keygen`.
    pub fn create(name: &str) -> SshKey {
        let dir = Scratch::new("ssh-key");
        let path = dir.path().join(name);
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-N", "", "-t", "ed25519", "-C", name, "-f"]).arg(&path);
        let status = command.status().expect("this test needs ssh-keygen");
        assert!(status.success(), "ssh-keygen: {status}");
        SshKey { name: name.to_owned(), path, _dir: dir }
    }

    /// The entry of a Secret of keys: its name, and the public key.
    ///
    /// # Panics
    /// When the key is gone.
    pub fn entry(&self) -> (String, String) {
        let public =
            std::fs::read_to_string(self.path.with_extension("pub")).expect("a public key");
        (format!("{}.sshpub", self.name), public)
    }
}

impl Repo {
    /// Signs the branch's last commit, which becomes another one by that, and returns its id.
    pub fn sign(&self, key: &SshKey) -> String {
        let plain = self.head();
        let tree = format!("{plain}^{{tree}}");
        let message = self.git(&["log", "--max-count=1", "--format=%B", &plain]);
        let parents = self.git(&["log", "--max-count=1", "--format=%P", &plain]);
        let mut args = vec!["commit-tree", "-S", &tree, "-m", &message];
        for parent in parents.split_whitespace() {
            args.extend(["-p", parent]);
        }
        let commit = self.signing(key, &args);
        self.reset(&commit);
        commit
    }

    /// Creates a signed tag.
    pub fn signed_tag(&self, name: &str, commit: &str, key: &SshKey) {
        self.signing(key, &["tag", "-s", "-m", name, name, commit]);
    }

    fn signing(&self, key: &SshKey, args: &[&str]) -> String {
        let key = format!("user.signingkey={}", key.path.display());
        self.git(&[&["-c", "gpg.format=ssh", "-c", &key], args].concat())
    }
}
