//! Objects as JSON, read and changed past every proxy: the hand of somebody else.

use crate::control_plane::ControlPlane;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::core::GroupVersionKind;
use kube::{Client, Error};
use serde_json::Value;

/// Asks for an object's metadata instead of the object.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// A kind whose objects are in namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// `v1`, `apps/v1`.
    pub api_version: &'static str,
    /// `Deployment`.
    pub name: &'static str,
    /// `deployments`.
    pub plural: &'static str,
}

impl Kind {
    /// The API group, empty for core kinds.
    pub fn group(&self) -> &'static str {
        self.api_version.split_once('/').map_or("", |(group, _version)| group)
    }

    pub(crate) fn resource(&self) -> ApiResource {
        let version = self.api_version.rsplit('/').next().unwrap_or_default();
        let kind = GroupVersionKind::gvk(self.group(), version, self.name);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }
}

/// Why the API server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refused {
    /// HTTP status, 0 when there was no answer.
    pub code: u16,
    /// The server's words.
    pub message: String,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(status) => Self { code: status.code, message: status.message.clone() },
            error => Self { code: 0, message: error.to_string() },
        }
    }
}

/// The administrator, under the name of one field manager.
#[derive(Clone)]
pub struct Hand {
    client: Client,
    manager: String,
}

impl Hand {
    /// A hand of this name.
    pub async fn new(plane: &ControlPlane, manager: &str) -> Self {
        Self { client: plane.client().await, manager: manager.to_owned() }
    }

    /// The same client under another name.
    #[must_use]
    pub fn named(&self, manager: &str) -> Self {
        Self { client: self.client.clone(), manager: manager.to_owned() }
    }

    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }

    /// An object as it is now.
    pub async fn get(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Refused> {
        Ok(self.api(kind, namespace).get_opt(name).await?.map(to_json))
    }

    /// All objects of a kind, in all namespaces.
    pub async fn list(&self, kind: Kind) -> Result<Vec<Value>, Refused> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind.resource());
        Ok(api.list(&ListParams::default()).await?.items.into_iter().map(to_json).collect())
    }

    /// Creates an object.
    pub async fn create(
        &self,
        kind: Kind,
        namespace: &str,
        object: &Value,
    ) -> Result<Value, Refused> {
        let object = serde_json::from_value(object.clone()).expect("an object has metadata");
        let params = PostParams { field_manager: Some(self.manager.clone()), ..Default::default() };
        Ok(to_json(self.api(kind, namespace).create(&params, &object).await?))
    }

    /// Server-side apply, with force.
    pub async fn apply(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        object: &Value,
    ) -> Result<Value, Refused> {
        let params = PatchParams::apply(&self.manager).force();
        let patched = self.api(kind, namespace).patch(name, &params, &Patch::Apply(object)).await?;
        Ok(to_json(patched))
    }

    /// A merge patch.
    pub async fn merge(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Value, Refused> {
        let params =
            PatchParams { field_manager: Some(self.manager.clone()), ..Default::default() };
        let patched = self.api(kind, namespace).patch(name, &params, &Patch::Merge(patch)).await?;
        Ok(to_json(patched))
    }

    /// Sends a body as it is, with the content type that belongs to it. Of the answer only metadata is
    /// asked for, and nothing is read.
    pub async fn send(
        &self,
        method: http::Method,
        uri: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<(), Refused> {
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .header(http::header::CONTENT_TYPE, content_type)
            .header(http::header::ACCEPT, METADATA)
            .body(body)
            .map_err(|error| Refused { code: 0, message: error.to_string() })?;
        self.client.request_text(request).await?;
        Ok(())
    }

    /// Deletes an object.
    pub async fn delete(&self, kind: Kind, namespace: &str, name: &str) -> Result<(), Refused> {
        self.api(kind, namespace).delete(name, &DeleteParams::background()).await?;
        Ok(())
    }
}

pub(crate) fn to_json(object: DynamicObject) -> Value {
    serde_json::to_value(object).expect("JSON")
}
