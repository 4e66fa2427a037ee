//! Repositories on an SSH server, as a GitRepository and its Secret name them.

use plumb_testkit::{Sshd, runtime};
use serde_json::json;

use crate::world::{World, condition, config_map};

/// Nothing says within an hour that there is something new but the Secret.
#[test]
fn a_secret_for_ssh_that_is_mended_brings_the_commit_at_once() {
    runtime().block_on(async {
        let world = World::new("ssh").await;
        let first = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "1")))], "one");
        let sshd = Sshd::start();
        let (identity, public) = sshd.make_key("ed25519", "hunter2-right");
        sshd.authorize(&public);
        let (other, stranger) = sshd.make_key("ecdsa", "");
        let known = sshd.known_hosts();
        let host = known.split(' ').next().unwrap();
        let elsewhere = known.replace("127.0.0.1", "127.0.0.2");
        let changed = format!("{host} {stranger}");
        let line = sshd.known_host("ed25519");
        let revoked = format!("{line}@revoked {line}");

        let secret = |identity: &str, known_hosts: &str, password: &str| {
            let data =
                json!({"identity": identity, "known_hosts": known_hosts, "password": password});
            world.secret("git", &data)
        };
        let agent = world.agent();
        let mut source = world.source("1h");
        source["spec"]["url"] = json!(sshd.url(world.repo.dir()));
        source["spec"]["secretRef"] = json!({"name": "git"});
        world.apply(&world.secret("git", &json!({"identity": &identity}))).await;
        world.apply(&source).await;
        world.apply(&world.app("web", "app", "1h")).await;
        let sources = world.sources();
        let parts = ["has an identity but no known_hosts", "ssh-keyscan"];
        world.wait_refused(&sources, "repo", "InvalidSecret", &parts).await;
        assert_eq!(sshd.connections(), 0);

        // The server is not spoken to by who does not know it, and sees no key of who is sent to
        // another one.
        let right = "hunter2-right";
        for (known_hosts, password, reason, words) in [
            (elsewhere.as_str(), right, "HostKeyUnknown", "known_hosts"),
            (changed.as_str(), right, "HostKeyChanged", "known_hosts"),
            (revoked.as_str(), right, "HostKeyRevoked", "revoked"),
            ("nonsense", right, "KnownHostsInvalid", "line 1"),
            (known.as_str(), "", "PassphraseMissing", "password"),
            (known.as_str(), "hunter2-wrong", "PassphraseWrong", "passphrase"),
        ] {
            world.apply(&secret(&identity, known_hosts, password)).await;
            world.wait_refused(&sources, "repo", reason, &[words]).await;
        }
        assert!(!sshd.log().contains("Accepted publickey"), "{}", sshd.log());
        assert!(!sshd.log().contains("Failed publickey"), "{}", sshd.log());
        world.apply(&secret(&other, &known, "")).await;
        world.wait_refused(&sources, "repo", "AuthenticationFailed", &[]).await;

        world.apply(&secret(&identity, &known, right)).await;
        world.wait_applied("web", &first).await;
        world.wait_value("a", "1").await;
        let connections = sshd.connections();
        let second = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "2")))], "two");
        world.look().await;
        world.wait_applied("web", &second).await;
        assert_eq!(sshd.connections(), connections + 1, "one look is one connection");

        // A server that changes its key is not believed, and what is applied stays enforced.
        world.apply(&secret(&identity, &changed, right)).await;
        let object = world.wait_refused(&sources, "repo", "HostKeyChanged", &[]).await;
        assert_eq!(object["status"]["revision"], format!("main@sha1:{second}"));
        assert_eq!(condition(&object, "Stalled")["status"], "True");
        let third = world.repo.commit(&[("app/a.yaml", Some(&config_map("a", "3")))], "three");
        world.edit(&world.config_maps(), "a", &json!({"data": {"value": "by hand"}})).await;
        world.wait_value("a", "2").await;
        world.apply(&secret(&identity, &known, right)).await;
        world.wait_applied("web", &third).await;
        assert!(!agent.logs().contains("hunter2"), "{}", agent.logs());
    });
}
