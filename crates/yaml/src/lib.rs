//! Reads and writes Kubernetes YAML.
