//! Manifests of sample applications.

/// One small application: a ServiceAccount, a Service, an Ingress and a Deployment.
#[derive(Debug, Clone)]
pub struct App {
    name: String,
    namespace: Option<String>,
    replicas: u32,
    image: String,
}

impl App {
    /// Four objects of this name, with a Deployment of 0 replicas: nothing is scheduled, so that
    /// hundreds of them cost the control plane little.
    pub fn new(name: &str) -> App {
        App {
            name: name.to_owned(),
            namespace: None,
            replicas: 0,
            image: "registry.example.com/app:1.0.0".to_owned(),
        }
    }

    /// Writes this namespace into every object.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> App {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// The Deployment's replicas.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> App {
        self.replicas = replicas;
        self
    }

    /// The container's image: the usual change of a commit.
    #[must_use]
    pub fn image(mut self, image: &str) -> App {
        image.clone_into(&mut self.image);
        self
    }

    /// The four files, each `DIR/KIND.yaml` with its content.
    pub fn files(&self, dir: &str) -> Vec<(String, String)> {
        [
            ("serviceaccount", self.service_account()),
            ("service", self.service()),
            ("ingress", self.ingress()),
            ("deployment", self.deployment()),
        ]
        .map(|(kind, text)| {
            let slash = if dir.is_empty() { "" } else { "/" };
            (format!("{dir}{slash}{kind}.yaml"), text)
        })
        .into()
    }

    /// The four objects in one text.
    pub fn manifest(&self) -> String {
        let texts: Vec<String> = self.files("").into_iter().map(|(_path, text)| text).collect();
        texts.join("---\n")
    }

    fn metadata(&self) -> String {
        let namespace = self
            .namespace
            .as_ref()
            .map_or_else(String::new, |namespace| format!("\n  namespace: {namespace}"));
        let name = &self.name;
        format!(
            "metadata:\n  name: {name}{namespace}\n  labels:\n    app.kubernetes.io/name: {name}"
        )
    }

    fn service_account(&self) -> String {
        format!("apiVersion: v1\nkind: ServiceAccount\n{}\n", self.metadata())
    }

    fn service(&self) -> String {
        format!(
            "\
apiVersion: v1
kind: Service
{}
spec:
  selector:
    app.kubernetes.io/name: {}
  ports:
    - name: http
      port: 80
      targetPort: 8080
",
            self.metadata(),
            self.name
        )
    }

    fn ingress(&self) -> String {
        format!(
            "\
apiVersion: networking.k8s.io/v1
kind: Ingress
{}
spec:
  rules:
    - host: {name}.example.com
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: {name}
                port:
                  name: http
",
            self.metadata(),
            name = self.name
        )
    }

    fn deployment(&self) -> String {
        format!(
            "\
apiVersion: apps/v1
kind: Deployment
{}
spec:
  replicas: {}
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {name}
    spec:
      serviceAccountName: {name}
      containers:
        - name: app
          image: {}
          ports:
            - name: http
              containerPort: 8080
",
            self.metadata(),
            self.replicas,
            self.image,
            name = self.name
        )
    }
}

/// A ConfigMap with one entry.
pub fn config_map(name: &str, key: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  {key}: {value:?}\n"
    )
}

/// A Secret with one entry.
pub fn secret(name: &str, key: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\nstringData:\n  {key}: {value:?}\n"
    )
}
