//! Which files are encrypted, and how.

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML, of one or more documents.
    Yaml,
    /// JSON.
    Json,
    /// Lines of `name=value`.
    Dotenv,
    /// Sections of `name = value`; known so that it can be refused.
    Ini,
    /// Anything, in an envelope of JSON.
    Binary,
}

impl Format {
    /// How a file is encrypted, if it is. The name decides where it says something, as for sops
    /// itself; the content decides about files of other names.
    pub fn of(name: &str, content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        // Every file that sops wrote has both.
        if !text.contains("ENC[AES256_GCM,") || !text.contains("sops") {
            return None;
        }
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        let line = |begins: &[&str]| {
            text.lines().any(|line| begins.iter().any(|begin| line.starts_with(begin)))
        };
        let braces = text.trim_start().starts_with('{') && text.contains("\"sops\"");
        let yaml = braces || line(&["sops:", "\"sops\":", "'sops':"]);
        let dotenv = line(&["sops_mac=", "sops_lastmodified=", "sops_version="]);
        let ini = line(&["[sops]"]);
        let found = if ends(&[".yaml", ".yml"]) {
            yaml.then_some(Self::Yaml)
        } else if ends(&[".json", ".dockerconfigjson"]) {
            braces.then_some(Self::Json)
        } else if ends(&[".env"]) {
            dotenv.then_some(Self::Dotenv)
        } else if ends(&[".ini"]) {
            ini.then_some(Self::Ini)
        } else {
            None
        };
        found.or_else(|| {
            let by_content = [
                (braces, Self::Binary),
                (yaml, Self::Yaml),
                (dotenv, Self::Dotenv),
                (ini, Self::Ini),
            ];
            by_content.into_iter().find_map(|(is, format)| is.then_some(format))
        })
    }
}
