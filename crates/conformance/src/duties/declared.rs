//! Desired state is declarative.

use crate::adapter::What;
use crate::cluster::config_maps;
use crate::scene::{Played, Scene, Stop};

/// The label of all that the kustomization makes.
const WOVEN: &str = "woven";

/// A kustomization that makes something of each of its files: a generator, a patch and a label.
fn woven(scene: &Scene<'_>) -> String {
    scene.commit(&[
        (
            "app/kustomization.yaml",
            Some(format!(
                "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: {}\nresources: [a.yaml, \
                 b.yaml]\nlabels:\n  - pairs: {{ {WOVEN}: \"yes\" }}\nconfigMapGenerator:\n  - name: made\n    literals: [x=1, \
                 y=2]\n",
                scene.ns
            )),
        ),
        ("app/a.yaml", Some(scene.map("a", "1"))),
        ("app/b.yaml", Some(scene.map("b", "2"))),
    ])
}

pub(crate) async fn renders_the_same(scene: &Scene<'_>) -> Played {
    let commit = woven(scene);
    scene.set_up().await?;
    scene.applied("app", &commit, scene.bound()).await?;
    let first = scene.shapes(WOVEN).await?;
    scene.note(format!("{} objects were made", first.len()));
    scene.drop_app("app").await?;
    scene
        .until("all objects are gone with their application", scene.bound(), async || {
            let left = scene.shapes(WOVEN).await?;
            Ok(if left.is_empty() { Ok(()) } else { Err(format!("{} are there", left.len())) })
        })
        .await?;
    scene.app("app", "app", &[], &[]).await?;
    scene.applied("app", &commit, scene.bound()).await?;
    same(scene, &first).await
}

/// Compares with what was there before.
async fn same(scene: &Scene<'_>, before: &std::collections::BTreeSet<String>) -> Played {
    let after = scene.shapes(WOVEN).await?;
    if let Some(other) = before.symmetric_difference(&after).next() {
        return Err(Stop::Fails(format!("this is only there once: {other}")));
    }
    scene.note(format!("{} objects are the same, byte for byte", after.len()));
    Ok(())
}

pub(crate) async fn recreates_all(scene: &Scene<'_>) -> Played {
    let commit = woven(scene);
    scene.set_up().await?;
    scene.applied("app", &commit, scene.bound()).await?;
    let before = scene.shapes(WOVEN).await?;
    let mut agent = scene.stage.agent().await;
    agent.stop();
    agent.wipe().await?;
    scene.note("the agent is stopped and its disk is empty");
    let cluster = &scene.stage.cluster;
    for object in cluster.list(&config_maps(), &scene.ns).await? {
        let metadata = &object["metadata"];
        if !metadata["labels"][WOVEN].is_null() {
            let name = metadata["name"].as_str().unwrap_or_default();
            cluster.delete(&config_maps(), &scene.ns, name).await?;
        }
    }
    agent.start()?;
    scene.note("all objects are deleted, and the agent is started");
    scene
        .until("as many objects are there as before", scene.bound_after_failure(), async || {
            let found = scene.shapes(WOVEN).await?.len();
            Ok(if found == before.len() { Ok(()) } else { Err(format!("{found} are there")) })
        })
        .await?;
    same(scene, &before).await
}

pub(crate) async fn reports_what_is_invalid(scene: &Scene<'_>) -> Played {
    let good = scene.commit_maps(&[("sound", "1")]);
    scene.set_up().await?;
    scene.applied("app", &good, scene.bound()).await?;
    let unknown = scene.map("misspelt", "1").replace("data:", "dta:");
    scene.commit(&[("app/misspelt.yaml", Some(unknown))]);
    scene.look("app").await?;
    scene.in_trouble("app", "misspelt", scene.bound()).await?;
    let invalid =
        scene.map("refused", "1").replace("kept: \"yes\"", "kept: \"no label has spaces\"");
    scene.commit(&[("app/misspelt.yaml", None), ("app/refused.yaml", Some(invalid))]);
    scene.look("app").await?;
    scene.in_trouble("app", "refused", scene.bound_after_failure()).await?;
    let mended = scene.commit(&[("app/refused.yaml", None)]);
    scene.look("app").await?;
    scene.applied("app", &mended, scene.bound_after_failure()).await?;
    let trouble = scene.read_text(What::Trouble, "app").await?;
    if trouble.is_empty() {
        return Ok(());
    }
    Err(Stop::Fails(format!("what is mended is still told as wrong: {trouble}")))
}

pub(crate) async fn needs_no_other_state(scene: &Scene<'_>) -> Played {
    let first = scene.commit_maps(&[("stays", "1"), ("leaves", "1")]);
    scene.set_up().await?;
    scene.applied("app", &first, scene.bound()).await?;
    let mut agent = scene.stage.agent().await;
    agent.stop();
    agent.wipe().await?;
    scene.note("the agent is stopped and its disk is empty");
    let second = scene
        .commit(&[("app/leaves.yaml", None), ("app/stays.yaml", Some(scene.map("stays", "2")))]);
    agent.start()?;
    drop(agent);
    scene.applied("app", &second, scene.bound_after_failure()).await?;
    let wanted = [("stays", Some("2")), ("leaves", None)];
    scene.values_are("what left Git is gone, the rest is there", &wanted, scene.bound()).await
}
