//! What was done without a violation, by chapter: of which seed, and with which build. It lies
//! outside the checkout, beside the binaries of the control plane, so that it outlives a build
//! directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use plumb_testkit::tools;
use serde_json::{Value, json};

use super::at;
use crate::error::TaskError;
use crate::process::{output, root};
use tokio::process::Command;

/// The rounds of one chapter that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) seed: u64,
    pub(super) apps: u16,
    pub(super) first: u32,
    pub(super) last: u32,
    /// What ran, as [`build`] tells it.
    pub(super) build: String,
}

impl Note {
    fn of(value: &Value) -> Option<Self> {
        let number = |name: &str| value[name].as_u64();
        Some(Self {
            seed: number("seed")?,
            apps: number("apps")?.try_into().ok()?,
            first: number("first")?.try_into().ok()?,
            last: number("last")?.try_into().ok()?,
            build: value["build"].as_str()?.to_owned(),
        })
    }

    fn text(&self) -> String {
        let Self { seed, apps, first, last, build } = self;
        let value =
            json!({ "seed": seed, "apps": apps, "first": first, "last": last, "build": build });
        format!("{value:#}\n")
    }
}

/// The commit that is checked out, and whether there is more to the build than that.
pub(super) async fn build() -> Result<String, TaskError> {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(args).current_dir(root());
        command
    };
    let (_, head) = output(git(&["rev-parse", "--short=12", "HEAD"])).await?;
    let (_, changed) = output(git(&["status", "--porcelain"])).await?;
    let more = if changed.is_empty() { "" } else { ", changed" };
    Ok(format!("{}{more}", head.trim()))
}

/// A directory with the notes, and with the evidence of violations.
#[derive(Debug)]
pub(super) struct Notes {
    dir: PathBuf,
}

impl Notes {
    /// Those of the given directory, else those of the user.
    pub(super) fn in_dir(given: Option<&Path>) -> Result<Self, TaskError> {
        let dir = match given {
            Some(dir) => dir.to_owned(),
            None => tools::cache().map_err(TaskError::Tools)?.join("torture"),
        };
        Ok(Self { dir })
    }

    /// Where what is known of a round is kept.
    pub(super) fn evidence(&self, seed: u64, round: u32) -> PathBuf {
        self.dir.join(format!("seed-{seed}-round-{round}"))
    }

    /// One file for each chapter, so that two runs at a time do not write into the same.
    fn chapters(&self, seed: u64, apps: u16) -> PathBuf {
        self.dir.join(format!("seed-{seed}-apps-{apps}"))
    }

    /// Whether the rounds of a chapter are done.
    pub(super) fn has(
        &self,
        seed: u64,
        apps: u16,
        (first, last): (u32, u32),
    ) -> Result<bool, TaskError> {
        let notes = self.of(seed, apps)?;
        Ok(notes.iter().any(|note| note.first == first && note.last >= last))
    }

    pub(super) fn write(&self, note: &Note) -> Result<(), TaskError> {
        let dir = self.chapters(note.seed, note.apps);
        write(&dir.join(format!("from-{:04}.json", note.first)), &note.text())
    }

    /// The notes of a seed, in the order of the rounds. What is no note is passed over: its rounds
    /// are done again.
    fn of(&self, seed: u64, apps: u16) -> Result<Vec<Note>, TaskError> {
        let dir = self.chapters(seed, apps);
        let files = match fs::read_dir(&dir) {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&dir)(error)),
        };
        let mut notes = Vec::new();
        for file in files {
            let path = file.map_err(at(&dir))?.path();
            let text = fs::read_to_string(&path).map_err(at(&path))?;
            let value = serde_json::from_str(&text).unwrap_or_default();
            notes.extend(Note::of(&value).filter(|note| (note.seed, note.apps) == (seed, apps)));
        }
        notes.sort_by_key(|note| note.first);
        Ok(notes)
    }

    /// How many rounds of a seed were done with which build: `seed 3: 200 rounds: 120 of 1a2b, 80
    /// of 3c4d`.
    pub(super) fn told(&self, seed: u64, apps: u16) -> Result<String, TaskError> {
        let notes = self.of(seed, apps)?;
        let mut builds: Vec<&str> = Vec::new();
        let mut rounds: BTreeMap<&str, u32> = BTreeMap::new();
        for note in &notes {
            if !builds.contains(&note.build.as_str()) {
                builds.push(&note.build);
            }
            *rounds.entry(&note.build).or_default() += note.last + 1 - note.first;
        }
        let all: u32 = rounds.values().sum();
        let mut told = format!("seed {seed}: {all} rounds without a violation");
        for (index, build) in builds.into_iter().enumerate() {
            let comma = if index == 0 { ":" } else { "," };
            let _infallible = write!(told, "{comma} {} of {build}", rounds[build]);
        }
        Ok(told)
    }
}

/// Writes a file, and the directory that it is in.
pub(super) fn write(path: &Path, text: &str) -> Result<(), TaskError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(at(parent))?;
    }
    fs::write(path, text).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chapter_is_done_when_it_is_noted_with_all_its_rounds() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::in_dir(Some(dir.path())).unwrap();
        assert!(!notes.has(7, 30, (1, 20)).unwrap(), "nothing is noted");
        let note = |first, last, build: &str| Note {
            seed: 7,
            apps: 30,
            first,
            last,
            build: build.to_owned(),
        };
        notes.write(&note(21, 40, "b")).unwrap();
        notes.write(&note(1, 10, "a")).unwrap();
        assert!(notes.has(7, 30, (21, 40)).unwrap() && notes.has(7, 30, (1, 10)).unwrap());
        assert!(!notes.has(7, 30, (1, 20)).unwrap(), "only half of it");
        assert!(!notes.has(8, 30, (1, 10)).unwrap() && !notes.has(7, 12, (1, 10)).unwrap());
        let told = notes.told(7, 30).unwrap();
        assert_eq!(told, "seed 7: 30 rounds without a violation: 10 of a, 20 of b");
        notes.write(&note(1, 20, "b")).unwrap();
        assert!(notes.has(7, 30, (1, 20)).unwrap());
        let told = notes.told(7, 30).unwrap();
        assert_eq!(told, "seed 7: 40 rounds without a violation: 40 of b");
        write(&notes.chapters(7, 30).join("from-0001.json"), "no note").unwrap();
        assert!(!notes.has(7, 30, (1, 20)).unwrap(), "what cannot be read is done again");
    }

    #[tokio::test]
    async fn a_build_is_told_by_its_commit() {
        let build = build().await.unwrap();
        let commit = build.split(',').next().unwrap();
        assert!(commit.len() == 12 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{build}");
    }
}
