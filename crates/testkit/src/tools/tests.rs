use super::*;
use crate::scratch::Scratch;

#[test]
fn versions_come_from_the_go_mod_files() {
    let text = "module x\n\ngo 1.26.0\n\nrequire (\n\tk8s.io/kubernetes v1.37.2 // indirect\n)\n\
                require sigs.k8s.io/kwok v0.8.0\n\nreplace a.b/c v1.0.0 => a.b/c v2.0.0\n";
    assert_eq!(pinned(text, "k8s.io/kubernetes"), Some("v1.37.2"));
    assert_eq!(pinned(text, "sigs.k8s.io/kwok"), Some("v0.8.0"));
    assert_eq!(pinned(text, "a.b/c"), None);
    assert_eq!(pinned(text, "k8s.io"), None);
    for tool in Tool::CONTROL_PLANE.into_iter().chain([Tool::Kustomize, Tool::Sops, Tool::Gitea]) {
        assert!(tool.module().version().unwrap().starts_with('v'), "{}", tool.name());
    }
}

#[test]
fn go_versions_are_read() {
    for (text, want) in [
        ("go1.26.8", Some((1, 26))),
        ("go1.27rc1", Some((1, 27))),
        ("devel go1.27-abcdef Mon", Some((1, 27))),
        ("go2.0", Some((2, 0))),
        ("gccgo", None),
        ("", None),
    ] {
        assert_eq!(go_version(text), want, "{text}");
    }
}

#[test]
fn without_go_the_error_says_what_to_install() {
    let cache = tempfile::tempdir().unwrap();
    let error = Tools::ready_in(cache.path(), None, Path::new("/nowhere/go")).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ToolError::NoGo { .. }), "{text}");
    assert!(text.contains("install Go 1.26 or newer"), "{text}");
}

#[test]
fn an_old_go_is_refused() {
    let cache = Scratch::new("tools");
    let go = cache.script("go", "#!/bin/sh\necho go1.20.3\n");
    let error = Tools::ready_in(cache.path(), None, &go).unwrap_err();
    assert!(matches!(error, ToolError::OldGo { .. }), "{error}");
    assert!(error.to_string().contains("found go1.20.3"), "{error}");
}

#[test]
fn given_assets_come_first_and_the_rest_is_built() {
    let dir = Scratch::new("tools");
    let (assets, cache) = (dir.path().join("assets"), dir.path().join("cache"));
    fs::create_dir_all(&assets).unwrap();
    for tool in [Tool::Etcd, Tool::Apiserver, Tool::Kubectl] {
        fs::write(assets.join(tool.name()), "").unwrap();
    }
    // A stand-in for go: it notes what it builds and writes the file that it is asked for.
    let log = dir.path().join("log");
    let source = dir.path().join("kwok");
    for stage in STAGES {
        fs::create_dir_all(source.join(stage)).unwrap();
        fs::write(source.join(stage).join("stage.yaml"), format!("# {stage}")).unwrap();
        fs::write(source.join(stage).join("kustomization.yaml"), "# not a stage").unwrap();
    }
    let script = format!(
        "#!/bin/sh\ncase $1 in env) echo go1.26.0;; list) echo {};; build) echo \"$7 CGO=\
         $CGO_ENABLED\" >>{}; : >$6;; esac\n",
        source.display(),
        log.display()
    );
    let go = dir.script("go", &script);

    let tools = Tools::ready_in(&cache, Some(&assets), &go).unwrap();
    assert_eq!(tools.path(Tool::Etcd), assets.join("etcd"));
    assert!(tools.path(Tool::Kwok).starts_with(&cache));
    assert_eq!(
        fs::read_to_string(&log).unwrap(),
        "sigs.k8s.io/kwok/cmd/kwok CGO=0\nk8s.io/kubernetes/cmd/kube-scheduler CGO=0\n\
         k8s.io/kubernetes/cmd/kube-controller-manager CGO=0\n"
    );
    let stages = fs::read_to_string(tools.stages()).unwrap();
    assert_eq!(stages.matches("---").count(), 3);
    assert!(!stages.contains("not a stage"));
    assert!(Tools::ready_in(&cache, Some(&assets), Path::new("/nowhere/go")).is_ok());
}

#[test]
fn a_peer_is_built_once_and_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    fs::write(&go, "#!/bin/sh\ncase $1 in env) echo go1.26.0;; build) echo $7 >$6;; esac\n")
        .unwrap();
    fs::set_permissions(&go, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = Tool::Kustomize.peer_in(dir.path(), &go).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "sigs.k8s.io/kustomize/kustomize/v5\n");
    assert_eq!(Tool::Kustomize.peer_in(dir.path(), Path::new("/nowhere/go")).unwrap(), path);
    assert!(!Tool::CONTROL_PLANE.contains(&Tool::Kustomize));

    fs::remove_file(&path).unwrap();
    let error = Tool::Kustomize.peer_in(dir.path(), Path::new("/nowhere/go")).unwrap_err();
    assert!(error.to_string().contains("or set PLUMB_KUSTOMIZE"), "{error}");
}
