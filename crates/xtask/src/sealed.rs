//! The golden cases of `crates/sops`: files that sops itself encrypted, and what it makes of them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use plumb_testkit::Tool;
use tokio::process::Command;

use crate::error::TaskError;
use crate::process::shown;
use crate::reference::peer;

/// Where the cases are, and the keys that open them.
const TESTS: &str = "crates/sops/tests";
/// Keys that the cases are encrypted for.
const AGE: [&str; 2] = ["age.agekey", "second.agekey"];
const PGP: [&str; 2] = ["curve.asc", "rsa.asc"];

/// The program, with keys of its own.
pub(crate) struct Sops {
    binary: PathBuf,
    /// Where gpg keeps what it is given. Gone with this.
    home: PathBuf,
}

impl Drop for Sops {
    fn drop(&mut self) {
        // Gpg leaves an agent behind, which ends with its directory, but not at once.
        let mut agent = std::process::Command::new("gpgconf");
        let _absent = agent.args(["--kill", "gpg-agent"]).env("GNUPGHOME", &self.home).status();
        let _gone = fs::remove_dir_all(&self.home);
    }
}

impl Sops {
    /// Finds the program, or builds it.
    pub(crate) async fn ready() -> Result<Self, TaskError> {
        Self::new(peer(Tool::Sops).await?)
    }

    fn new(binary: PathBuf) -> Result<Self, TaskError> {
        // A path in a checkout may be too long for the sockets of gpg.
        let home = std::env::temp_dir().join(format!("plumb-sops-{}", std::process::id()));
        fs::create_dir_all(&home).map_err(at(&home))?;
        Ok(Self { binary, home })
    }

    /// A program that finds the keys of the tests, and those alone.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        // For gpg, which sops calls.
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("GNUPGHOME", &self.home).env("SOPS_AGE_KEY_FILE", self.home.join("age"));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Takes the keys of the tests.
    async fn keys(&self, dir: &Path) -> Result<(), TaskError> {
        let mut all = String::new();
        for name in AGE {
            let path = dir.join(name);
            all += &fs::read_to_string(&path).map_err(at(&path))?;
        }
        let path = self.home.join("age");
        fs::write(&path, all).map_err(at(&path))?;
        let mut gpg = self.command(Path::new("gpg"));
        gpg.args(["--batch", "--quiet", "--import"]).args(PGP.map(|name| dir.join(name)));
        bytes(gpg).await.map(|_| ())
    }
}

/// What belongs beside the plain file of each case: the encrypted one as it is, or a new one, and
/// what sops makes of it.
pub(crate) async fn golden(root: &Path, sops: &Sops) -> Result<Vec<(PathBuf, Vec<u8>)>, TaskError> {
    let tests = root.join(TESTS);
    sops.keys(&tests.join("keys")).await?;
    let cases = tests.join("golden");
    let mut files = Vec::new();
    for case in fs::read_dir(&cases).map_err(at(&cases))? {
        let case = case.map_err(at(&cases))?;
        let mut names = fs::read_dir(case.path()).map_err(at(&case.path()))?.flatten();
        let plain = names.find(|file| file.file_name().to_string_lossy().starts_with("plain."));
        let Some(plain) = plain.map(|file| file.path()) else {
            let source = ErrorKind::NotFound.into();
            return Err(TaskError::File { path: case.path().join("plain"), source });
        };
        let extension = plain.extension().unwrap_or_default().to_string_lossy().into_owned();
        // A name that says nothing to sops, but is JSON.
        let types: &[&str] = match extension.as_str() {
            "dockerconfigjson" => &["--input-type", "json", "--output-type", "json"],
            _ => &[],
        };
        let relative = Path::new(TESTS).join("golden").join(case.file_name());
        let sealed = case.path().join(format!("sealed.{extension}"));
        let content = match fs::read(&sealed) {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut command = sops.command(&sops.binary);
                command.arg("--config").arg(case.path().join("config.yaml"));
                command.arg("encrypt").args(types).arg(&plain);
                bytes(command).await?
            }
            Err(source) => return Err(TaskError::File { path: sealed, source }),
        };
        let copy = sops.home.join(format!("sealed.{extension}"));
        fs::write(&copy, &content).map_err(at(&copy))?;
        let mut command = sops.command(&sops.binary);
        command.arg("decrypt").args(types);
        command.args(fs::read_to_string(case.path().join("decrypt")).unwrap_or_default().lines());
        command.arg(&copy);
        let expected = bytes(command).await?;
        files.push((relative.join(format!("expected.{extension}")), expected));
        files.push((relative.join(format!("sealed.{extension}")), content));
    }
    files.sort();
    Ok(files)
}

/// Runs a command and takes what it prints.
async fn bytes(mut command: Command) -> Result<Vec<u8>, TaskError> {
    let line = shown(&command);
    let output = match command.stderr(Stdio::inherit()).output().await {
        Ok(output) => output,
        Err(source) => return Err(TaskError::Start { command: line, source }),
    };
    if !output.status.success() {
        return Err(TaskError::Failed { command: line, status: output.status });
    }
    Ok(output.stdout)
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> TaskError + use<> {
    let path = path.to_owned();
    move |source| TaskError::File { path, source }
}
