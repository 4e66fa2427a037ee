//! Repositories made with the `git` command.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plumb_source::CommitId;

/// A bare repository, written to through its plumbing commands.
pub(crate) struct Repo {
    pub(crate) path: PathBuf,
}

impl Repo {
    pub(crate) fn init(path: &Path) -> Self {
        Self::init_with(path, &[])
    }

    pub(crate) fn init_with(path: &Path, options: &[&str]) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let repo = Self { path: path.into() };
        let mut args = vec!["init", "-q", "--bare", "-b", "main"];
        args.extend(options);
        repo.git(&args);
        repo
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        self.git_with(args, "")
    }

    pub(crate) fn git_with(&self, args: &[&str], input: &str) -> String {
        let mut child = Command::new("git")
            .current_dir(&self.path)
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", &self.path)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "Ada")
            .env("GIT_AUTHOR_EMAIL", "ada@example.com")
            .env("GIT_COMMITTER_NAME", "Bob")
            .env("GIT_COMMITTER_EMAIL", "bob@example.com")
            .env("GIT_COMMITTER_DATE", "1700000000 +0000")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("these tests need the git command");
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Stores a blob and returns its id.
    pub(crate) fn blob(&self, content: &str) -> String {
        self.git_with(&["hash-object", "-w", "--stdin"], content)
    }

    /// Stores a tree of (mode, path, id).
    pub(crate) fn tree(&self, entries: &[(&str, &str, &str)]) -> String {
        let _ = std::fs::remove_file(self.path.join("index"));
        let lines: Vec<String> =
            entries.iter().map(|(mode, path, id)| format!("{mode} {id}	{path}")).collect();
        let input = lines.join(
            "
",
        ) + "
";
        self.git_with(&["update-index", "--add", "--index-info"], &input);
        self.git(&["write-tree"])
    }

    /// Stores one directory with these modes, names and objects, which it takes for what they are.
    pub(crate) fn directory(&self, entries: &[(&str, &str, &str)]) -> String {
        let line = |(mode, name, id): &(&str, &str, &str)| {
            let kind = match *mode {
                "040000" => "tree",
                "160000" => "commit",
                _ => "blob",
            };
            format!("{mode} {kind} {id}\t{name}\n")
        };
        let input: String = entries.iter().map(line).collect();
        self.git_with(&["mktree", "--missing"], &input)
    }

    /// Makes a commit of a tree; no reference points to it.
    pub(crate) fn commit_tree(&self, tree: &str, parents: &[&str], message: &str) -> CommitId {
        let mut args = vec!["commit-tree", tree];
        for parent in parents {
            args.extend(["-p", parent]);
        }
        self.git_with(&args, &format!("{message}\n")).parse().unwrap()
    }

    /// Commits these files, and nothing else, on top of a reference, and moves it there.
    pub(crate) fn commit(&self, reference: &str, files: &[(&str, &str)]) -> CommitId {
        let blobs: Vec<String> = files.iter().map(|(_, text)| self.blob(text)).collect();
        let entries: Vec<(&str, &str, &str)> = files
            .iter()
            .zip(&blobs)
            .map(|((path, _), id)| ("100644", *path, id.as_str()))
            .collect();
        let tree = self.tree(&entries);
        let old = self.git(&["for-each-ref", "--format=%(objectname)", reference]);
        let parents: Vec<&str> = old.lines().collect();
        let commit = self.commit_tree(&tree, &parents, &format!("change {reference}"));
        self.point(reference, &commit);
        commit
    }

    pub(crate) fn point(&self, reference: &str, commit: &CommitId) {
        self.git(&["update-ref", reference, &commit.to_string()]);
    }
}
