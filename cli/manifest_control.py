"""The control plane's part: etcd, ipamd, and the Job that begins the cluster."""

import hashlib
from typing import Any

from cli.manifest_access import AGENT, BEGIN, CA, IPAMD
from cli.manifest_agent import fingerprint, kubernetes
from cli.manifest_pods import (
    CA_MOUNT,
    CONTROL_PLANE,
    KUBELET_MOUNT,
    LABEL,
    Object,
    confined,
    host_path,
    kubelet_file,
    metadata,
    mount,
    pod,
    probe,
)
from cli.manifest_site import ENROLL_PORT, IPAMD_PORT, NAMESPACE, Member, Site

ETCD, UPKEEP = "isthmus-etcd", "isthmus-etcd-upkeep"
ETCD_SECRET = "isthmus-etcd"
_CLIENT_PORT, _PEER_PORT, _PAGE_PORT = 2479, 2480, 2481
_IPAMD_PAGE = 9478
_CERTIFICATES = "/etc/isthmus-etcd"
_STATE = "/var/lib/isthmus-ipamd"
_RUN = "/run/isthmus-etcd"
# etcd makes its socket in its working directory, under the URL's host: nobody but root gets there.
_SOCKET_URL = f"unix://localhost:{_CLIENT_PORT}"
_ONE = {"replicas": 1, "strategy": {"type": "Recreate"}}
_ROLL = {
    "type": "RollingUpdate",
    "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},  # each has the node's port
}


def control(site: Site) -> list[Object]:
    config = ipamd_config(site)
    parts: list[Object] = []
    if not site.etcd:
        members = site.members or (None,)
        parts += [etcd(site, member) for member in members]
        parts.append(etcd_upkeep(site))
    return [*parts, config, service(), ipamd(site, fingerprint(config)), begin(site)]


def is_alone(site: Site) -> bool:
    """Our etcd is of one member: ipamd reaches it by its socket, on the same node."""
    return not site.etcd and len(site.members) < 2


def etcd(site: Site, member: Member | None) -> Object:
    """One member, pinned to its node where that is named: its data is on that node's disk."""
    name = f"{ETCD}-{member.node}" if member else ETCD
    container = {
        "name": "etcd",
        "image": site.etcd_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["etcd", *_etcd_arguments(site, member)],
        "workingDir": _RUN,
        "securityContext": confined(),
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "startupProbe": probe("/health", _PAGE_PORT, periodSeconds=1, failureThreshold=300),
        "livenessProbe": probe("/health?serializable=true", _PAGE_PORT, timeoutSeconds=10),
        "readinessProbe": probe("/health", _PAGE_PORT, periodSeconds=2, timeoutSeconds=5),
        "volumeMounts": [
            mount("data", "/var/lib/isthmus-etcd"),
            mount("run", _RUN),
            *([] if is_alone(site) else [mount("certificates", _CERTIFICATES, readOnly=True)]),
        ],
    }
    template = pod(
        ETCD,
        container,
        automountServiceAccountToken=False,
        nodeSelector=_where(member),
        terminationGracePeriodSeconds=30,
        volumes=_etcd_volumes(site),
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name),
        "spec": {**_ONE, **_selecting(template, ETCD, member)},
    }


def _etcd_arguments(site: Site, member: Member | None) -> list[str]:
    own = member.node if member else "isthmus"
    if is_alone(site):
        client, peer = _SOCKET_URL, f"unix://localhost:{_PEER_PORT}"
        told, between = f"http://127.0.0.1:{_CLIENT_PORT}", f"http://127.0.0.1:{_PEER_PORT}"
        cluster = f"{own}={between}"
    else:
        assert member is not None
        client = told = member.url(_CLIENT_PORT)
        peer = between = member.url(_PEER_PORT)
        cluster = ",".join(f"{one.node}={one.url(_PEER_PORT)}" for one in site.members)
    return [
        f"--name={own}",
        "--data-dir=/var/lib/isthmus-etcd/data",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={told}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={between}",
        f"--initial-cluster={cluster}",
        "--initial-cluster-token=isthmus",
        f"--listen-metrics-urls=http://127.0.0.1:{_PAGE_PORT}",
        # Each change leaves a revision; an hour of them is enough for whoever watches.
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
        "--quota-backend-bytes=536870912",
        "--snapshot-count=10000",
        *([] if is_alone(site) else _tls_arguments()),
    ]


def _tls_arguments() -> list[str]:
    arguments = []
    for prefix in ("", "peer-"):
        arguments += [
            f"--{prefix}cert-file={_CERTIFICATES}/member.pem",
            f"--{prefix}key-file={_CERTIFICATES}/member.key",
            f"--{prefix}trusted-ca-file={_CERTIFICATES}/ca.pem",
            f"--{prefix}client-cert-auth=true",
        ]
    return arguments


def _etcd_volumes(site: Site) -> list[Object]:
    volumes = [host_path("data", "/var/lib/isthmus-etcd"), host_path("run", _RUN)]
    if not is_alone(site):
        secret = {"secretName": ETCD_SECRET, "defaultMode": 0o400}
        volumes.append({"name": "certificates", "secret": secret})
    return volumes


def _selecting(template: Object, name: str, member: Member | None) -> Object:
    labels = {LABEL: name, **({"member": member.node} if member else {})}
    template["metadata"]["labels"] = labels
    return {"selector": {"matchLabels": labels}, "template": template}


def _where(member: Member | None) -> dict[str, str]:
    return {"kubernetes.io/hostname": member.node} if member else {CONTROL_PLANE: ""}


def etcd_upkeep(site: Site) -> Object:
    """Each night: give back the room of compacted revisions, and keep a snapshot."""
    at, members = _etcdctl_arguments(site), [] if is_alone(site) else ["--cluster"]
    base = {
        "image": site.etcd_image,
        "imagePullPolicy": "IfNotPresent",
        "workingDir": _RUN,
        "securityContext": confined(),
        "volumeMounts": [
            mount("data", "/var/lib/isthmus-etcd"),
            mount("run", _RUN),
            *([] if is_alone(site) else [mount("certificates", _CERTIFICATES, readOnly=True)]),
        ],
    }
    template = pod(
        UPKEEP,
        {
            "name": "snapshot",
            "command": [*at, "snapshot", "save", "/var/lib/isthmus-etcd/snapshot.db"],
        }
        | base,
        initContainers=[{"name": "defragment", "command": [*at, "defrag", *members]} | base],
        automountServiceAccountToken=False,
        restartPolicy="Never",
        affinity=_beside(ETCD),
        volumes=_etcd_volumes(site),
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata(UPKEEP),
        "spec": {
            "schedule": "17 3 * * *",
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {"spec": {"backoffLimit": 2, "template": template}},
        },
    }


def _etcdctl_arguments(site: Site) -> list[str]:
    if is_alone(site):
        return ["etcdctl", f"--endpoints={_SOCKET_URL}"]
    return [
        "etcdctl",
        f"--endpoints={site.members[0].url(_CLIENT_PORT)}",
        f"--cacert={_CERTIFICATES}/ca.pem",
        f"--cert={_CERTIFICATES}/client.pem",
        f"--key={_CERTIFICATES}/client.key",
    ]


def _etcd_toml(site: Site) -> str:
    if is_alone(site):
        return f'etcd_endpoints = ["unix://{_RUN}/localhost:{_CLIENT_PORT}"]\n'
    urls = site.etcd or tuple(member.url(_CLIENT_PORT) for member in site.members)
    text = f"etcd_endpoints = [{', '.join(f'{chr(34)}{url}{chr(34)}' for url in urls)}]\n"
    if etcd_secret(site):
        text += (
            f'etcd_ca = "{_CERTIFICATES}/ca.pem"\n'
            f'etcd_certificate = "{_CERTIFICATES}/client.pem"\n'
            f'etcd_key = "{_CERTIFICATES}/client.key"\n'
        )
    return text


def etcd_secret(site: Site) -> str:
    """The Secret that ipamd proves itself to etcd with, or ""."""
    return site.etcd_secret or ("" if is_alone(site) or site.etcd else ETCD_SECRET)


def ipamd_config(site: Site) -> Object:
    text = (
        f'log_format = "json"\nlog_level = "{site.log_level}"\n'
        f'metrics_address = "127.0.0.1:{_IPAMD_PAGE}"\n'
        f'ca = "{CA_MOUNT}/ca.pem"\nca_key = "{CA_MOUNT}/ca.key"\n'
        'hosts = ["127.0.0.1", "::1", "localhost"]\n'
        f'enroll_account = "{NAMESPACE}/{AGENT}"\n'
        f"{_etcd_toml(site)}\n{kubernetes(site)}"
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(IPAMD),
        "data": {"ipamd.toml": text},
    }


def service() -> Object:
    """Never called by its address: agents read where ipamd is in its EndpointSlices."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(IPAMD),
        "spec": {
            "clusterIP": "None",
            "ipFamilyPolicy": "PreferDualStack",
            "publishNotReadyAddresses": True,
            "selector": {LABEL: IPAMD},
            "ports": [
                {"name": "ipamd", "port": IPAMD_PORT},
                {"name": "enroll", "port": ENROLL_PORT},
            ],
        },
    }


def ipamd(site: Site, config: str) -> Object:
    volumes, mounts = kubelet_file(site)
    container = {
        "name": "ipamd",
        "image": site.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["ipamd", "--config", "/etc/isthmus/ipamd.toml"],
        "env": [
            {"name": "MALLOC_ARENA_MAX", "value": "2"},
            # For `isthmus ipam` in this pod.
            {"name": "ISTHMUS_IPAMD", "value": f"127.0.0.1:{IPAMD_PORT}"},
            {"name": "ISTHMUS_IDENTITY", "value": _STATE},
        ],
        "ports": [
            {"name": "ipamd", "containerPort": IPAMD_PORT},
            {"name": "enroll", "containerPort": ENROLL_PORT},
        ],
        "securityContext": confined(),
        "resources": {"requests": {"cpu": "50m", "memory": "80Mi"}},
        "startupProbe": probe("/livez", _IPAMD_PAGE, periodSeconds=1, failureThreshold=300),
        "livenessProbe": probe("/livez", _IPAMD_PAGE, timeoutSeconds=5),
        "readinessProbe": probe("/readyz", _IPAMD_PAGE, periodSeconds=2, timeoutSeconds=5),
        "volumeMounts": [
            mount("config", "/etc/isthmus", readOnly=True),
            mount("ca", CA_MOUNT, readOnly=True),
            *mounts,
            mount("state", _STATE),
            mount("tmp", "/tmp"),
            *_etcd_mounts(site),
        ],
    }
    template = pod(
        IPAMD,
        container,
        serviceAccountName=IPAMD,
        nodeSelector={CONTROL_PLANE: ""},
        affinity=_beside(ETCD) if is_alone(site) else _apart(IPAMD),
        terminationGracePeriodSeconds=30,
        volumes=[
            {"name": "config", "configMap": {"name": IPAMD}},
            {"name": "ca", "secret": {"secretName": CA, "defaultMode": 0o400}},
            *volumes,
            host_path("state", _STATE),
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            *_ipamd_etcd_volumes(site),
        ],
    )
    template["metadata"]["annotations"] = {"isthmus/config": config}
    replicas = {"replicas": max(1, len(site.members)), "strategy": _ROLL}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(IPAMD),
        "spec": {**replicas, "selector": {"matchLabels": {LABEL: IPAMD}}, "template": template},
    }


def _etcd_mounts(site: Site) -> list[Object]:
    if is_alone(site):
        return [mount("etcd", _RUN)]
    return [mount("etcd", _CERTIFICATES, readOnly=True)] if etcd_secret(site) else []


def _ipamd_etcd_volumes(site: Site) -> list[Object]:
    if is_alone(site):
        return [host_path("etcd", _RUN)]
    name = etcd_secret(site)
    return [{"name": "etcd", "secret": {"secretName": name}}] if name else []


def _beside(app: str) -> Object:
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_at(app)]}}


def _apart(app: str) -> Object:
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_at(app)]}}


def _at(app: str) -> Object:
    return {
        "labelSelector": {"matchLabels": {LABEL: app}},
        "topologyKey": "kubernetes.io/hostname",
    }


def begin(site: Site) -> Object:
    """A Job is never changed: another choice of pools, or another image, is another Job."""
    volumes, mounts = kubelet_file(site)
    arguments = [f"--pool={pool}" for pool in site.pools]
    arguments.append(
        f"--api-server={site.api_server}"
        if site.api_server
        else f"--api-server-from={KUBELET_MOUNT}"
    )
    container: dict[str, Any] = {
        "name": "begin",
        "image": site.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["ipam", "begin", *arguments],
        "securityContext": confined(),
        "volumeMounts": [mount("tmp", "/tmp"), *mounts],
    }
    template = pod(
        BEGIN,
        container,
        serviceAccountName=BEGIN,
        nodeSelector={CONTROL_PLANE: ""},
        affinity=_beside(IPAMD),
        restartPolicy="OnFailure",
        volumes=[
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            *volumes,
        ],
    )
    words = " ".join([site.image, *arguments])
    suffix = hashlib.sha256(words.encode()).hexdigest()[:8]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(BEGIN) | {"name": f"{BEGIN}-{suffix}", "namespace": NAMESPACE},
        "spec": {"backoffLimit": 20, "ttlSecondsAfterFinished": 86400, "template": template},
    }
