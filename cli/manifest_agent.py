"""The agent: its configuration, the network list, and the DaemonSet."""

import hashlib
import json
from typing import Any

from cli.installation import conflist
from cli.manifest_access import AGENT, CA, IPAMD
from cli.manifest_pods import (
    CA_MOUNT,
    KUBELET_MOUNT,
    LABEL,
    Object,
    confined,
    from_field,
    host_path,
    kubelet_file,
    metadata,
    mount,
    pod,
    probe,
)
from cli.manifest_site import NAMESPACE, Site
from cli.places import CONF

LIST = "10-isthmus.conflist"
AUDIENCE = "isthmus-ipamd"
PAGE_PORT = 9477
_CONFIG, _TOKEN = "/etc/isthmus", "/run/secrets/isthmus"
_FORMER = "/var/lib/cni/networks"
# What each is for: docs/kubernetes.md.
CAPABILITIES = ("NET_ADMIN", "NET_RAW", "SYS_ADMIN", "DAC_OVERRIDE")


def network_list(site: Site) -> str:
    """Routed mode, and addresses from this node's blocks."""
    document: dict[str, Any] = json.loads(
        conflist((CONF / "10-isthmus-routed.conflist").read_bytes(), (), None)
    )
    plugin = document["plugins"][0]
    del plugin["ipMasq"]
    families = sorted({pool.cidr.version for pool in site.pools})
    zero = {4: "0.0.0.0/0", 6: "::/0"}
    plugin["ipam"] = {"type": "isthmus", "routes": [{"dst": zero[one]} for one in families]}
    return json.dumps(document, indent=2) + "\n"


def kubernetes(site: Site) -> str:
    """The table by which the API server is found, for agent and ipamd alike."""
    key, value = (
        ("address", site.api_server) if site.api_server else ("address_from", KUBELET_MOUNT)
    )
    return f'[kubernetes]\n{key} = "{value}"\n'


def agent_toml(site: Site) -> str:
    return (
        f'log_format = "json"\nlog_level = "{site.log_level}"\n'
        f'metrics_address = "127.0.0.1:{PAGE_PORT}"\n'
        f'host_local = "{_FORMER}"\n\n'
        f'[install]\nnetwork_list = "{_CONFIG}/{LIST}"\n\n'
        f'{kubernetes(site)}service = "{NAMESPACE}/{IPAMD}"\n\n'
        f'[ipamd]\nserver_name = "{IPAMD}"\n'
        f'token = "{_TOKEN}/token"\nca = "{CA_MOUNT}/ca.pem"\n'
        "\n"
        f'[routing]\nmode = "{site.mode}"\nmtu = {site.mtu}\n'
        + ("\n[masquerade]\n" if site.masquerade else "")
        + ("\n[services]\n" if site.services else "")
        + ("open_firewall = true\n" if site.open_firewall else "")
        + ("\n[announce]\n" if site.announce else "")
    )


def config_map(site: Site) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(AGENT),
        "data": {"agent.toml": agent_toml(site), LIST: network_list(site)},
    }


def daemon_set(site: Site) -> Object:
    volumes, mounts = kubelet_file(site)
    container = {
        "name": "agent",
        "image": site.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["agent", "--config", f"{_CONFIG}/agent.toml"],
        "env": [
            from_field("ISTHMUS_NODE", "spec.nodeName"),
        ],
        "securityContext": confined(*CAPABILITIES),
        "resources": {
            "requests": {"cpu": "50m", "memory": "80Mi"},
            # No limit: an agent that is killed for its memory serves nobody.
        },
        "startupProbe": probe("/livez", PAGE_PORT, periodSeconds=1, failureThreshold=120),
        "livenessProbe": probe("/livez", PAGE_PORT, periodSeconds=10, timeoutSeconds=5),
        "readinessProbe": probe("/readyz", PAGE_PORT, periodSeconds=2, timeoutSeconds=5),
        "volumeMounts": [
            mount("config", _CONFIG, readOnly=True),
            mount("token", _TOKEN, readOnly=True),
            mount("ca", CA_MOUNT, readOnly=True),
            *mounts,
            mount("state", "/var/lib/isthmus"),
            mount("socket", "/run/isthmus"),
            mount("bin", "/opt/cni/bin"),
            mount("lists", "/etc/cni/net.d"),
            mount("former", _FORMER),
            mount("netns", "/run/netns", mountPropagation="HostToContainer"),
            mount("machine", "/etc/machine-id", readOnly=True),
            mount("tmp", "/tmp"),
        ],
    }
    template = pod(
        AGENT,
        container,
        serviceAccountName=AGENT,
        # Running pods do without an agent, and the next one goes on from its store.
        terminationGracePeriodSeconds=20,
        volumes=[
            {"name": "config", "configMap": {"name": AGENT}},
            {"name": "ca", "configMap": {"name": CA}},
            {"name": "token", "projected": {"sources": [_token()]}},
            *volumes,
            host_path("state", "/var/lib/isthmus"),
            host_path("socket", "/run/isthmus"),
            host_path("bin", "/opt/cni/bin"),
            host_path("lists", "/etc/cni/net.d"),
            host_path("former", site.host_local),
            host_path("netns", "/run/netns"),
            host_path("machine", "/etc/machine-id", "File"),
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        ],
    )
    template["metadata"]["annotations"] = {"isthmus/config": fingerprint(config_map(site))}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(AGENT),
        "spec": {
            "selector": {"matchLabels": {LABEL: AGENT}},
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0},
            },
            "template": template,
        },
    }


def fingerprint(config: Object) -> str:
    """Differs with the configuration, so that applying another one rolls the pods."""
    content = json.dumps(config["data"], sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _token() -> Object:
    """Only ipamd takes it, and it says which node this is."""
    return {
        "serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": 3600, "path": "token"}
    }
