"""What must hold for all manifests of the chart, whatever its values. Each policy yields what is
wrong, in words."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]
Policy = Callable[[list[Manifest]], Iterable[str]]


@dataclass(frozen=True)
class Pod:
    """A pod, or one that some object makes."""

    owner: str
    labels: dict[str, str]
    spec: dict[str, Any]
    role: str = ""

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ends_by_itself(self) -> bool:
        """A test's, which nobody keeps running."""
        return self.owner.startswith("Pod/")


def of_kind(manifests: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] in kinds]


def name_of(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def pods(manifests: Iterable[Manifest]) -> Iterator[Pod]:
    """Every pod and pod template."""
    for each in manifests:
        if each["kind"] == "Pod":
            templates = [each]
        elif each["kind"] == "Deployment":
            templates = [each["spec"]["template"]]
        elif each["kind"] == "LeaderWorkerSet":
            group = each["spec"]["leaderWorkerTemplate"]
            templates = [group["leaderTemplate"], group["workerTemplate"]]
        else:
            continue
        for template in templates:
            labels = template["metadata"]["labels"]
            role = labels.get("roundhouse-role", "")
            yield Pod(name_of(each), labels, template["spec"], role)


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def not_root(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        security = pod.spec.get("securityContext", {})
        if security.get("runAsNonRoot") is not True:
            yield f"{pod.owner} may run as root"
        # A name could not be judged by the kubelet.
        if not isinstance(security.get("runAsUser"), int) or security["runAsUser"] < 1:
            yield f"{pod.owner} has no user by number"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{pod.owner} may use every system call"


def confined(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        if any(pod.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{pod.owner} shares namespaces with its node"
        for container in pod.containers:
            security = container.get("securityContext", {})
            where = f"{pod.owner} {container['name']}"
            if security.get("readOnlyRootFilesystem") is not True:
                yield f"{where} can write its image"
            if security.get("allowPrivilegeEscalation") is not False:
                yield f"{where} may gain privileges"
            if security.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{where} keeps capabilities"
            if security.get("privileged"):
                yield f"{where} is privileged"


def admitted(manifests: list[Manifest]) -> Iterator[str]:
    """What a namespace that enforces the level `restricted` lets in; but for a cache that the
    values themselves put on the node."""
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}
    kinds.add("persistentVolumeClaim")
    for pod in pods(manifests):
        for volume in pod.spec.get("volumes", []):
            if not set(volume) - {"name"} <= kinds and (
                pod.role == "" or volume["name"] != "cache"
            ):
                yield f"{pod.owner} reaches its node by {volume['name']}"
        for container in pod.containers:
            if any("hostPort" in port for port in container.get("ports", [])):
                yield f"{pod.owner} takes a port of its node"


def writable_where_needed(manifests: list[Manifest]) -> Iterator[str]:
    """A root that cannot be written needs a home and a folder for temporary files."""
    for pod in pods(manifests):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        for container in pod.containers:
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            home = {each["name"]: each.get("value") for each in container["env"]}["HOME"]
            for path in (home, "/tmp"):
                if "emptyDir" not in volumes.get(mounts.get(path, {}).get("name"), {}):
                    yield f"{pod.owner} cannot write {path}"
            for mount in mounts.values():
                if mount["name"] not in volumes:
                    yield f"{pod.owner} mounts {mount['name']}, which is no volume"


def limited(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        for container in pod.containers:
            resources = container.get("resources", {})
            if "memory" not in resources.get("limits", {}):
                yield f"{pod.owner} may take all memory of its node"
            if not {"cpu", "memory"} <= set(resources.get("requests", {})):
                yield f"{pod.owner} asks for nothing"
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
                yield f"{pod.owner}'s {volume['name']} may fill its node's disk"


def probed(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        if pod.role == "worker" or pod.ends_by_itself:
            continue  # listens nowhere; a worker's group is made anew when it dies
        for container in pod.spec["containers"]:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = container.get(probe, {}).get("httpGet", {}).get("path")
                if path not in ("/health", "/ready"):
                    yield f"{pod.owner} has no {probe} on a path that asks for no key"
            if container["livenessProbe"]["httpGet"]["path"] == "/ready":
                yield f"{pod.owner} is killed while it drains"


def no_token(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.owner} mounts a token"
        if pod.spec.get("enableServiceLinks") is not False:
            yield f"{pod.owner} gets variables of every Service"
    for account in of_kind(manifests, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"{name_of(account)} gives tokens"


def no_secret_in_the_open(manifests: list[Manifest]) -> Iterator[str]:
    """Nothing that a Secret holds stands elsewhere, and no variable of a key's name has a value."""
    secrets = {
        base64.b64decode(value).decode()
        for each in of_kind(manifests, "Secret")
        for value in each["data"].values()
    }
    for each in manifests:
        if each["kind"] != "Secret" and any(secret in str(each) for secret in secrets):
            yield f"{name_of(each)} tells a secret"
    for each in of_kind(manifests, "ConfigMap"):
        for text in each["data"].values():
            for line in re.findall(r"(?:api_key|admin_key|\bkey): *(\S+)", text):
                if not line.strip("'\"").startswith(("${", "sha256:")):
                    yield f"{name_of(each)} has a key"
    for pod in pods(manifests):
        for container in pod.containers:
            for variable in container.get("env", []):
                if re.search(r"_(?:KEY|TOKEN)$", variable["name"]) and "value" in variable:
                    yield f"{pod.owner} has {variable['name']} in the open"


def selectors_match(manifests: list[Manifest]) -> Iterator[str]:
    """Each selector means the pods of one object, and those alone."""
    there = list(pods(manifests))
    for each in manifests:
        kind, spec = each["kind"], each.get("spec", {})
        if kind == "Service":
            selector = spec["selector"]
        elif kind in ("Deployment", "PodDisruptionBudget"):
            selector = spec["selector"]["matchLabels"]
        elif kind == "NetworkPolicy":
            selector = spec["podSelector"]["matchLabels"]
        else:
            continue
        owners = {pod.owner for pod in there if selects(selector, pod.labels)}
        if len(owners) != 1:
            yield f"{name_of(each)} selects {sorted(owners) or 'nothing'}"
        elif kind == "Deployment" and owners != {name_of(each)}:
            yield f"{name_of(each)} selects another's pods"


def ports_exist(manifests: list[Manifest]) -> Iterator[str]:
    there = list(pods(manifests))
    for each in of_kind(manifests, "Service", "NetworkPolicy"):
        spec = each["spec"]
        if each["kind"] == "Service":
            selector, wanted = spec["selector"], [port["targetPort"] for port in spec["ports"]]
        else:
            selector = spec["podSelector"]["matchLabels"]
            wanted = [port["port"] for rule in spec["ingress"] for port in rule.get("ports", [])]
        for pod in there:
            if not selects(selector, pod.labels) or pod.role == "worker":
                continue
            ports = [port for each in pod.containers for port in each.get("ports", [])]
            known = {port["name"] for port in ports} | {port["containerPort"] for port in ports}
            for port in wanted:
                if port not in known:
                    yield f"{name_of(each)}: {pod.owner} has no port {port}"


def labelled(manifests: list[Manifest]) -> Iterator[str]:
    for each in manifests:
        labels = each["metadata"]["labels"]
        if labels.get("app.kubernetes.io/managed-by") != "Helm":
            yield f"{name_of(each)} is nobody's"
        if not each["metadata"].get("namespace"):
            yield f"{name_of(each)} is in no namespace"
    for pod in pods(manifests):
        versions = {"helm.sh/chart", "app.kubernetes.io/version"} & set(pod.labels)
        if versions and not pod.ends_by_itself:
            yield f"{pod.owner} is replaced by every new version of the chart"
        if any(len(value) > 63 for value in pod.labels.values()):
            yield f"{pod.owner} has a label that is too long"
    names = [name_of(each) for each in manifests]
    if len(names) != len(set(names)):
        yield f"two objects have one name: {sorted(names)}"


def distinct(manifests: list[Manifest]) -> Iterator[str]:
    """A list that Kubernetes keeps as a map has each key once; server-side apply insists."""
    for pod in pods(manifests):
        lists = [("volumes", [each["name"] for each in pod.spec.get("volumes", [])])]
        for container in pod.containers:
            for key, name in (("env", "name"), ("volumeMounts", "mountPath"), ("ports", "name")):
                lists.append((key, [each[name] for each in container.get(key, [])]))
        for key, names in lists:
            if len(names) != len(set(names)):
                yield f"{pod.owner} has two {key} of one name: {names}"


def versioned(manifests: list[Manifest]) -> Iterator[str]:
    """An image says which one it is."""
    for pod in pods(manifests):
        for container in pod.containers:
            name, at, _ = container["image"].partition("@")
            tag = name.rpartition("/")[2].partition(":")[2]
            if not at and tag in ("", "latest"):
                yield f"{pod.owner} runs whatever {container['image']} is today"


def one_scaler(manifests: list[Manifest]) -> Iterator[str]:
    """What a HorizontalPodAutoscaler scales has no number that each upgrade would set again."""
    scaled = [
        (each["spec"]["scaleTargetRef"]["kind"], each["spec"]["scaleTargetRef"]["name"])
        for each in of_kind(manifests, "HorizontalPodAutoscaler")
    ]
    if len(scaled) != len(set(scaled)):
        yield "two scale the same"
    for each in of_kind(manifests, "Deployment", "LeaderWorkerSet"):
        is_scaled = (each["kind"], each["metadata"]["name"]) in scaled
        if is_scaled == ("replicas" in each["spec"]):
            yield f"{name_of(each)} is scaled by {'two' if is_scaled else 'nobody'}"


def time_to_end(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        for container in pod.containers:
            sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
            if pod.spec["terminationGracePeriodSeconds"] <= sleep.get("seconds", 0):
                yield f"{pod.owner} is killed before it is told to end"


def guarded(manifests: list[Manifest]) -> Iterator[str]:
    """vLLM asks for no key: only who is named may reach an engine."""
    policies = of_kind(manifests, "NetworkPolicy")
    for pod in pods(manifests):
        if pod.role and policies:
            mine = [
                p for p in policies if selects(p["spec"]["podSelector"]["matchLabels"], pod.labels)
            ]
            if not mine or not all(rule.get("from") for p in mine for rule in p["spec"]["ingress"]):
                yield f"{pod.owner} can be reached by everybody"


def whole(manifests: list[Manifest], elsewhere: frozenset[str] = frozenset()) -> Iterator[str]:
    """What is referred to is there; `elsewhere`: names of objects that the values say exist."""
    there = {name_of(each) for each in manifests}
    wanted = [(pod.owner, what) for pod in pods(manifests) for what in _wanted_by(pod)]
    for each in of_kind(manifests, "HorizontalPodAutoscaler"):
        target = each["spec"]["scaleTargetRef"]
        wanted.append((name_of(each), f"{target['kind']}/{target['name']}"))
    for each in of_kind(manifests, "Ingress"):
        for rule in each["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                wanted.append((name_of(each), f"Service/{path['backend']['service']['name']}"))
    for each in of_kind(manifests, "ServiceMonitor"):
        for endpoint in each["spec"]["endpoints"]:
            credentials = endpoint["authorization"]["credentials"]
            wanted.append((name_of(each), f"Secret/{credentials['name']}"))
    for who, what in wanted:
        if what not in there and what.partition("/")[2] not in elsewhere:
            yield f"{who} refers to {what}, which is not there"


def _wanted_by(pod: Pod) -> Iterator[str]:
    account = pod.spec.get("serviceAccountName", "default")
    if account != "default":
        yield f"ServiceAccount/{account}"
    for volume in pod.spec.get("volumes", []):
        if "configMap" in volume:
            yield f"ConfigMap/{volume['configMap']['name']}"
        if "persistentVolumeClaim" in volume:
            yield f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}"
    for container in pod.containers:
        for source in container.get("envFrom", []):
            yield f"Secret/{source['secretRef']['name']}"
        for variable in container.get("env", []):
            if secret := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield f"Secret/{secret['name']}"


POLICIES: tuple[Policy, ...] = (
    not_root,
    confined,
    admitted,
    writable_where_needed,
    limited,
    probed,
    no_token,
    no_secret_in_the_open,
    selectors_match,
    ports_exist,
    labelled,
    distinct,
    versioned,
    one_scaler,
    time_to_end,
    guarded,
)


def elsewhere(values: dict[str, Any]) -> frozenset[str]:
    """Names that the values give to objects which are not the chart's."""
    secrets = values.get("secrets", {})
    names = {secrets.get("existingSecret"), *secrets.get("env", [])}
    for settings in (values.get("engineDefaults", {}), *values.get("engines", [])):
        names.add(settings.get("hfToken", {}).get("existingSecret"))
        names.add(settings.get("cache", {}).get("existingClaim"))
    if not values.get("serviceAccount", {}).get("create", True):
        names.add(values["serviceAccount"].get("name"))
    return frozenset(name for name in names if name)
