#!/bin/sh
# The least that can be called a GitOps agent: every INTERVAL seconds it pulls what each ConfigMap that is
# labelled for it names, and applies it. It has no prune but kubectl's own, no health, no history.
#
# A ConfigMap is one application: data.url, data.path, and in data.status what came of it.
set -u
dir=$1
interval=$2
kubectl=$3
mkdir -p "$dir"

# Writes the outcome into the application's own object, if it is another one.
tell() {
  namespace=$1 name=$2 revision=$3 trouble=$4
  trouble=$(printf '%s' "$trouble" | tr '\n"\\' "  /" | cut -c1-500)
  "$kubectl" --namespace "$namespace" annotate configmap "$name" --overwrite \
    "shell.example.com/revision=$revision" "shell.example.com/trouble=$trouble" >/dev/null
}

# One application: pull, then apply. kubectl prunes by a label that it puts on all.
converge() {
  namespace=$1 name=$2 url=$3 path=$4 before=$5
  tree="$dir/$namespace-$name"
  if [ ! -d "$tree/.git" ]; then
    rm -rf "$tree"
    if ! said=$(git clone --quiet --branch main "$url" "$tree" 2>&1); then
      tell "$namespace" "$name" "$before" "$said"
      return
    fi
  elif ! said=$(git -C "$tree" fetch --quiet origin main 2>&1 &&
    git -C "$tree" reset --quiet --hard FETCH_HEAD 2>&1); then
    tell "$namespace" "$name" "$before" "$said"
    return
  fi
  revision=$(git -C "$tree" rev-parse HEAD)
  if [ -f "$tree/$path/kustomization.yaml" ]; then how=-k; else how=-f; fi
  if said=$("$kubectl" apply "$how" "$tree/$path" --namespace "$namespace" --server-side \
    --force-conflicts --field-manager shell --applyset "configmap/$name-set" --prune 2>&1); then
    tell "$namespace" "$name" "$revision" ""
  else
    tell "$namespace" "$name" "$before" "$said"
  fi
}

export KUBECTL_APPLYSET=true
while true; do
  "$kubectl" get configmaps --all-namespaces --selector shell.example.com/application=yes \
    --output 'jsonpath={range .items[*]}{.metadata.namespace}{"\t"}{.metadata.name}{"\t"}{.data.url}{"\t"}{.data.path}{"\t"}{.metadata.annotations.shell\.example\.com/revision}{"\n"}{end}' \
    >"$dir/applications" 2>/dev/null || true
  while IFS="$(printf '\t')" read -r namespace name url path before; do
    [ -n "$name" ] && converge "$namespace" "$name" "$url" "$path" "${before:-}"
  done <"$dir/applications"
  sleep "$interval"
done
