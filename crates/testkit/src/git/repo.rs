//! Scripted repositories.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// 2024-01-01T00:00:00Z: the same script gives the same commit ids on every machine.
const EPOCH: u64 = 1_704_067_200;

/// What happens to one path in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A file with this content.
    File(String, Vec<u8>),
    /// An executable file.
    Executable(String, Vec<u8>),
    /// A symbolic link: path and target.
    Link(String, String),
    /// A submodule: path and commit.
    Submodule(String, String),
    /// The file, or everything in the directory, goes.
    Delete(String),
}

/// A bare repository on a [`GitServer`](super::GitServer). Its methods end the test on failure.
///
/// A clone works on the same repository, and so does [`Repo::on`] with another branch.
#[derive(Debug, Clone)]
pub struct Repo {
    dir: PathBuf,
    branch: String,
    /// Seconds since [`EPOCH`], one more for each commit or tag.
    clock: Arc<AtomicU64>,
}

impl Repo {
    pub(super) fn open(dir: PathBuf) -> Repo {
        let repo = Repo { branch: "main".to_owned(), clock: Arc::new(AtomicU64::new(0)), dir };
        if !repo.dir.exists() {
            std::fs::create_dir_all(&repo.dir)
                .unwrap_or_else(|error| panic!("cannot create {}: {error}", repo.dir.display()));
            repo.git(&["init", "--quiet", "--bare", "--initial-branch=main", "."]);
            // So that the demo's user can push.
            repo.git(&["config", "http.receivepack", "true"]);
        }
        let time = repo.git(&["log", "--all", "--max-count=1", "--date-order", "--format=%ct"]);
        if let Ok(time) = time.parse::<u64>() {
            repo.clock.store(time.saturating_sub(EPOCH) + 1, Ordering::Relaxed);
        }
        repo
    }

    /// The bare repository.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The same repository, with commits going to that branch. A branch that does not exist begins
    /// with its first commit, without a parent.
    #[must_use]
    pub fn on(&self, branch: &str) -> Repo {
        Repo { branch: branch.to_owned(), ..self.clone() }
    }

    /// Commits changes of files: a path with its new content, or with none to delete it. Returns
    /// the commit's id.
    pub fn commit(&self, changes: &[(&str, Option<&str>)], message: &str) -> String {
        self.commit_changes(&from_pairs(changes), message)
    }

    /// Commits changes of every kind.
    pub fn commit_changes(&self, changes: &[Change], message: &str) -> String {
        let reference = self.reference();
        let parents: Vec<String> = self.resolve(&reference).into_iter().collect();
        self.import(&parents, None, changes, message)
    }

    /// Replaces the branch's last commit by another with these changes, as `git commit --amend`
    /// and a forced push do.
    pub fn amend(&self, changes: &[(&str, Option<&str>)], message: &str) -> String {
        let tip = self.head();
        let parents = self.git(&["log", "--max-count=1", "--format=%P", &tip]);
        let parents: Vec<String> = parents.split_whitespace().map(str::to_owned).collect();
        let tree = self.git(&["rev-parse", &format!("{tip}^{{tree}}")]);
        self.import(&parents, Some(&tree), &from_pairs(changes), message)
    }

    /// Moves the branch to a commit, which need not follow from the present one.
    pub fn reset(&self, commit: &str) {
        self.git(&["update-ref", &self.reference(), commit]);
    }

    /// The id of the branch's last commit.
    pub fn head(&self) -> String {
        let reference = self.reference();
        self.resolve(&reference)
            .unwrap_or_else(|| panic!("{reference} does not exist in {}", self.dir.display()))
    }

    /// Creates a branch at a commit.
    pub fn branch(&self, name: &str, commit: &str) {
        self.git(&["update-ref", &format!("refs/heads/{name}"), commit]);
    }

    /// Deletes a branch.
    pub fn delete_branch(&self, name: &str) {
        self.git(&["update-ref", "-d", &format!("refs/heads/{name}")]);
    }

    /// Creates or moves a lightweight tag.
    pub fn tag(&self, name: &str, commit: &str) {
        self.git(&["update-ref", &format!("refs/tags/{name}"), commit]);
    }

    /// Creates or moves an annotated tag and returns the id of the tag object.
    pub fn annotated_tag(&self, name: &str, commit: &str, message: &str) -> String {
        self.git(&["tag", "--force", "--annotate", "--message", message, name, commit]);
        self.git(&["rev-parse", &format!("refs/tags/{name}")])
    }

    /// Deletes a tag.
    pub fn delete_tag(&self, name: &str) {
        self.git(&["update-ref", "-d", &format!("refs/tags/{name}")]);
    }

    /// Sets any other ref, such as `refs/pull/1/head`.
    pub fn set_ref(&self, name: &str, commit: &str) {
        self.git(&["update-ref", name, commit]);
    }

    /// Deletes every ref: the repository looks as if nothing was ever pushed.
    pub fn empty(&self) {
        for name in self.git(&["for-each-ref", "--format=%(refname)"]).lines() {
            self.git(&["update-ref", "-d", name]);
        }
    }

    /// Sets an option of the repository, such as `uploadpack.allowAnySHA1InWant`.
    pub fn config(&self, name: &str, value: &str) {
        self.git(&["config", name, value]);
    }

    /// Runs git on the repository and returns what it prints, trimmed.
    pub fn git(&self, args: &[&str]) -> String {
        self.run(args, b"").unwrap_or_else(|said| {
            panic!("git {} in {}: {said}", args.join(" "), self.dir.display())
        })
    }

    fn reference(&self) -> String {
        format!("refs/heads/{}", self.branch)
    }

    fn resolve(&self, reference: &str) -> Option<String> {
        self.run(&["rev-parse", "--verify", "--quiet", reference], b"").ok()
    }

    /// One process for a commit of any size.
    fn import(
        &self,
        parents: &[String],
        tree: Option<&str>,
        changes: &[Change],
        message: &str,
    ) -> String {
        let time = EPOCH + self.clock.fetch_add(1, Ordering::Relaxed);
        let reference = self.reference();
        let mut stream = Vec::new();
        let mut line = |text: &str| {
            stream.extend_from_slice(text.as_bytes());
            stream.push(b'\n');
        };
        // Without this, fast-import takes the present tip as parent of a root commit.
        line(&format!("reset {reference}"));
        line(&format!("commit {reference}"));
        for role in ["author", "committer"] {
            line(&format!("{role} Plumb Test <test@example.com> {time} +0000"));
        }
        line(&format!("data {}\n{message}", message.len()));
        for (index, parent) in parents.iter().enumerate() {
            line(&format!("{} {parent}", if index == 0 { "from" } else { "merge" }));
        }
        if let Some(tree) = tree {
            line(&format!("M 040000 {tree} \"\""));
        }
        for change in changes {
            let (mode, path, content): (_, _, &[u8]) = match change {
                Change::File(path, content) => ("100644", path, content),
                Change::Executable(path, content) => ("100755", path, content),
                Change::Link(path, target) => ("120000", path, target.as_bytes()),
                Change::Submodule(path, commit) => {
                    stream.extend(format!("M 160000 {commit} {}\n", quoted(path)).into_bytes());
                    continue;
                }
                Change::Delete(path) => {
                    stream.extend(format!("D {}\n", quoted(path)).into_bytes());
                    continue;
                }
            };
            let head = format!("M {mode} inline {}\ndata {}\n", quoted(path), content.len());
            stream.extend(head.into_bytes());
            stream.extend_from_slice(content);
            stream.push(b'\n');
        }
        stream.extend_from_slice(b"done\n");
        self.run(&["fast-import", "--quiet", "--force", "--done"], &stream)
            .unwrap_or_else(|said| panic!("git fast-import in {}: {said}", self.dir.display()));
        self.head()
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Result<String, String> {
        let date = format!("{} +0000", EPOCH + self.clock.load(Ordering::Relaxed));
        let mut command = Command::new("git");
        for inherited in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(inherited);
        }
        let mut child = command
            .args(args)
            .current_dir(&self.dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "Plumb Test")
            .env("GIT_AUTHOR_EMAIL", "test@example.com")
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_NAME", "Plumb Test")
            .env("GIT_COMMITTER_EMAIL", "test@example.com")
            .env("GIT_COMMITTER_DATE", &date)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run git: {error}"))?;
        let mut pipe = child.stdin.take().expect("stdin is piped");
        // A command that reads nothing closes the pipe; its status tells the rest.
        let _closed = pipe.write_all(input);
        drop(pipe);
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

fn from_pairs(changes: &[(&str, Option<&str>)]) -> Vec<Change> {
    let change = |(path, content): &(&str, Option<&str>)| match content {
        Some(content) => Change::File((*path).to_owned(), content.as_bytes().to_vec()),
        None => Change::Delete((*path).to_owned()),
    };
    changes.iter().map(change).collect()
}

/// A path as fast-import reads it whatever it holds.
fn quoted(path: &str) -> String {
    let escaped = path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}
