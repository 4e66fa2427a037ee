//! Applications whose path Kustomize builds.

use plumb_testkit::{Repo, runtime, wait_for};
use serde_json::json;

use crate::scrape::Probe;
use crate::world::{LIMIT, World, condition, config_map};

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 1
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: main
        image: registry.example.com/web:1
        env:
        - {name: HOST, value: unset}
        envFrom:
        - configMapRef: {name: settings}
";

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports:
  - port: 80
";

/// Two replicas of what is there.
const COMPONENT: &str = "\
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
replicas:
- {name: web, count: 2}
";

/// A generated ConfigMap, and the name of the Service as the build leaves it in a variable.
fn overlay(extra: &str) -> String {
    format!(
        "\
resources: [../base]
components: [../component]
nameSuffix: -prod
configMapGenerator:
- name: settings
  literals: [level=info]
replacements:
- source: {{kind: Service, fieldPath: spec.selector.app}}
  targets:
  - select: {{kind: Deployment}}
    fieldPaths:
    - spec.template.spec.containers.*.env.[name=HOST].value
{extra}"
    )
}

fn commit_overlay(repo: &Repo, extra: &str, message: &str) -> String {
    let overlay = overlay(extra);
    repo.commit(
        &[
            ("base/kustomization.yaml", Some("resources: [deployment.yaml, service.yaml]\n")),
            ("base/deployment.yaml", Some(DEPLOYMENT)),
            ("base/service.yaml", Some(SERVICE)),
            ("component/kustomization.yaml", Some(COMPONENT)),
            ("prod/kustomization.yaml", Some(&overlay)),
        ],
        message,
    )
}

#[test]
fn an_overlay_with_component_generator_and_replacement_is_applied() {
    runtime().block_on(async {
        let world = World::new("overlay").await;
        let commit = commit_overlay(&world.repo, "", "one");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        world.apply(&world.app("web", "prod", "1h")).await;
        let app = world.wait_applied("web", &commit).await;
        assert_eq!(app["status"]["objects"], 3);

        let deployment = world.get(&world.api("apps/v1", "Deployment"), "web-prod").await;
        let spec = &deployment["spec"];
        assert_eq!(spec["replicas"], 2, "the component");
        let container = &spec["template"]["spec"]["containers"][0];
        assert_eq!(container["env"][0]["value"], "web", "the replacement");
        let generated = container["envFrom"][0]["configMapRef"]["name"].as_str().unwrap();
        assert!(generated.starts_with("settings-prod-"), "{generated}");
        let settings = world.get(&world.config_maps(), generated).await;
        assert_eq!(settings["data"], json!({"level": "info"}));
        world.get(&world.api("v1", "Service"), "web-prod").await;

        // Another content has another name; the old one goes.
        let text = overlay("").replace("level=info", "level=debug");
        let commit = world.repo.commit(&[("prod/kustomization.yaml", Some(&text))], "two");
        world.look().await;
        world.wait_applied("web", &commit).await;
        world.wait_gone(&world.config_maps(), generated).await;
    });
}

/// Three applications of two bases. A commit to one base costs the applications that use it what
/// they have to write, and the others nothing at all.
#[test]
fn a_change_in_a_base_renders_the_applications_that_use_it() {
    runtime().block_on(async {
        let world = World::new("bases").await;
        let user = world.identity.user();
        let audit = world.plane.audit();
        let overlay = |base: &str, prefix: &str| {
            format!("resources: [../bases/{base}]\nnamePrefix: {prefix}-\n")
        };
        let base = |value: &str| config_map("map", value);
        let first = world.repo.commit(
            &[
                ("bases/one/kustomization.yaml", Some("resources: [map.yaml]\n")),
                ("bases/one/map.yaml", Some(&base("1"))),
                ("bases/two/kustomization.yaml", Some("resources: [map.yaml]\n")),
                ("bases/two/map.yaml", Some(&base("1"))),
                ("a/kustomization.yaml", Some(&overlay("one", "a"))),
                ("b/kustomization.yaml", Some(&overlay("one", "b"))),
                ("c/kustomization.yaml", Some(&overlay("two", "c"))),
            ],
            "one",
        );
        world.apply(&world.source("1h")).await;
        for app in ["a", "b", "c"] {
            world.apply(&world.app(app, app, "1h")).await;
        }
        let mut agent = world.agent();
        let probe = Probe::of(&mut agent).await;
        for app in ["a", "b", "c"] {
            world.wait_applied(app, &first).await;
        }
        let scrape = probe.idle(4).await;
        world.plane.settled().await;

        let mark = audit.mark();
        let second = world.repo.commit(
            &[
                ("bases/one/map.yaml", Some(&base("2"))),
                ("bases/one/README.md", Some("beside")),
                ("c/README.md", Some("beside")),
                ("d/kustomization.yaml", Some("resources: []\n")),
            ],
            "two",
        );
        world.look().await;
        for app in ["a", "b"] {
            world.wait_applied(app, &second).await;
            world.wait_value(&format!("{app}-map"), "2").await;
        }
        probe.idle(scrape.runs() + 4).await;
        wait_for("the events of the commit", LIMIT, async || {
            let sent = audit.requests(mark).by(&user).count("create events.k8s.io/events");
            if sent >= 3 { Ok(()) } else { Err(sent) }
        })
        .await;
        world.plane.settled().await;
        let requests = audit.requests(mark).by(&user).writes();
        let requests = requests.only(|event| event.resource != "leases");
        eprintln!("a commit to a base of two applications:\n{}", requests.table());
        // Each of the two: one object, one status, one event; and the same of the repository
        // without an object.
        assert_eq!(requests.count("patch configmaps"), 2, "{}", requests.table());
        assert_eq!(requests.count("patch plumb.dev/applications/status"), 2);
        assert_eq!(requests.len(), 2 * 3 + 2, "{}", requests.table());
        let about = |name: &str| requests.iter().filter(|event| event.name == name).count();
        assert_eq!((about("c"), about("c-map")), (0, 0), "{}", requests.table());
        let kept = world.get(&world.apps(), "c").await;
        assert_eq!(kept["status"]["lastAppliedRevision"], format!("main@sha1:{first}"));

        // One in an overlay is that application's alone.
        let mark = audit.mark();
        let text = overlay("two", "c") + "commonAnnotations: {note: new}\n";
        let third = world.repo.commit(&[("c/kustomization.yaml", Some(&text))], "three");
        world.look().await;
        world.wait_applied("c", &third).await;
        world.plane.settled().await;
        let requests = audit.requests(mark).by(&user).writes();
        assert_eq!(requests.count("patch configmaps"), 1, "{}", requests.table());
        assert_eq!(requests.iter().filter(|event| event.name == "a-map").count(), 0);
    });
}

#[test]
fn fields_of_an_application_work_as_if_they_stood_in_the_kustomization() {
    runtime().block_on(async {
        let world = World::new("fields").await;
        let target = world.plane.namespace("fields-target").await;
        let commit = world.repo.commit(
            &[
                ("app/deployment.yaml", Some(DEPLOYMENT)),
                ("app/base/kustomization.yaml", Some("resources: [map.yaml]\nnamePrefix: base-\n")),
                ("app/base/map.yaml", Some(&config_map("map", "1"))),
                ("component/kustomization.yaml", Some(COMPONENT)),
            ],
            "one",
        );
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "app", "1h");
        world.apply(&app).await;
        world.wait_applied("web", &commit).await;
        world.wait_value("base-map", "1").await;
        let deployments = world.api("apps/v1", "Deployment");
        let uid = world.get(&deployments, "web").await["metadata"]["uid"].clone();

        app["spec"]["images"] = json!([{"name": "registry.example.com/web", "newTag": "2"}]);
        app["spec"]["components"] = json!(["../component"]);
        app["spec"]["patches"] = json!([{
            "target": {"kind": "Deployment"},
            "patch": "- {op: replace, path: /spec/template/spec/containers/0/env/0/value, value: patched}\n",
        }]);
        app["spec"]["commonMetadata"] = json!({
            "labels": {"team": "a"}, "annotations": {"note": "text"},
        });
        world.apply(&app).await;
        let spec = wait_for("the Deployment to be changed", LIMIT, async || {
            let deployment = world.get(&deployments, "web").await;
            let labels = &deployment["metadata"]["labels"];
            if labels["team"] == "a" { Ok(deployment["spec"].clone()) } else { Err(deployment) }
        })
        .await;
        assert_eq!(spec["replicas"], 2);
        let container = &spec["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "registry.example.com/web:2");
        assert_eq!(container["env"][0]["value"], "patched");
        assert_eq!(spec["template"]["metadata"]["labels"], json!({"app": "web"}));
        let map = world.get(&world.config_maps(), "base-map").await;
        assert_eq!(map["metadata"]["annotations"]["note"], "text");
        assert_eq!(world.get(&deployments, "web").await["metadata"]["uid"], uid, "the same object");

        // Another namespace and prefix: the objects are there, and no longer here.
        app["spec"]["targetNamespace"] = json!(target);
        app["spec"]["namePrefix"] = json!("x-");
        world.apply(&app).await;
        world.wait_gone(&world.config_maps(), "base-map").await;
        world.wait_gone(&deployments, "web").await;
        let there = kube::Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(
            world.client.clone(),
            &target,
        );
        assert!(there.get_opt("x-base-map").await.unwrap().is_some());
    });
}

#[test]
fn a_kustomization_that_cannot_be_built_leaves_live_objects_alone() {
    runtime().block_on(async {
        let world = World::new("broken-kustomization").await;
        let good = commit_overlay(&world.repo, "", "good");
        let _agent = world.agent();
        world.apply(&world.source("1h")).await;
        let mut app = world.app("web", "prod", "1h");
        world.apply(&app).await;
        world.wait_applied("web", &good).await;
        let deployments = world.api("apps/v1", "Deployment");
        let before = world.get(&deployments, "web-prod").await["metadata"].clone();
        let untouched = async || {
            let after = world.get(&deployments, "web-prod").await["metadata"].clone();
            assert_eq!(after["uid"], before["uid"]);
            assert_eq!(after["generation"], before["generation"]);
        };

        commit_overlay(&world.repo, "nameprefx: x-\n", "a slip of the pen");
        world.look().await;
        let place = "prod/kustomization.yaml:13";
        let parts = [place, "unknown field \"nameprefx\"", "did you mean \"namePrefix\"?"];
        let failed = world.wait_refused(&world.apps(), "web", "BuildFailed", &parts).await;
        assert_eq!(failed["status"]["failures"][0]["place"], place);
        assert_eq!(condition(&failed, "Stalled")["status"], "True");
        untouched().await;

        // What was applied last stays enforced.
        world.edit(&deployments, "web-prod", &json!({"spec": {"replicas": 5}})).await;
        wait_for("the change by hand to be put back", LIMIT, async || {
            let live = world.get(&deployments, "web-prod").await;
            if live["spec"]["replicas"] == 2 { Ok(()) } else { Err(live) }
        })
        .await;

        // What Git LFS keeps elsewhere is no content of a ConfigMap, either.
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n";
        world.repo.commit(&[("prod/big", Some(pointer))], "a pointer");
        commit_overlay(&world.repo, "secretGenerator: [{name: big, files: [big]}]\n", "its use");
        world.look().await;
        let parts = ["prod/big:1: Secret big: the file is a Git LFS pointer", "out of Git LFS"];
        world.wait_refused(&world.apps(), "web", "BuildFailed", &parts).await;

        let mended = commit_overlay(&world.repo, "# mended\n", "mended");
        world.look().await;
        world.wait_applied("web", &mended).await;

        // A mistake in the spec names its field.
        app["spec"]["patches"] = json!([
            {"patch": "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: ClusterIP}\n"},
            {"patch": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: nobody}\n"},
        ]);
        world.apply(&app).await;
        let parts = ["spec.patches[1]: no object is ConfigMap nobody"];
        let failed = world.wait_refused(&world.apps(), "web", "BuildFailed", &parts).await;
        assert_eq!(failed["status"]["failures"][0]["place"], "spec.patches[1]");
        app["spec"].as_object_mut().unwrap().remove("patches");
        world.apply(&app).await;
        world.wait_applied("web", &mended).await;
    });
}
