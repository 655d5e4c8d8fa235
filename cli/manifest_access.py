"""The namespace, and who may ask the API server for what: each rule with the part that needs it."""

from collections.abc import Sequence
from typing import Any

from cli.manifest_site import NAMESPACE

AGENT, IPAMD, BEGIN = "isthmus-agent", "isthmus-ipamd", "isthmus-begin"
CA, RECORD = "isthmus-ca", "isthmus-cluster"
Object = dict[str, Any]


def access(*, policy: bool = True) -> list[Object]:
    """In the order in which they have to be made; *policy*: with the one of admission."""
    return [
        namespace(),
        *(_named("v1", "ServiceAccount", name) for name in (AGENT, IPAMD, BEGIN)),
        _cluster_role(
            AGENT,
            # Which blocks this node has, whether it is ready, what its addresses are.
            _rule("", ["nodes"], ["get", "list", "watch", "patch"]),
            _rule("", ["nodes/status"], ["patch"]),
            # Annotations of a pod and of its namespace say pool, address, MAC and bandwidth.
            _rule("", ["pods", "namespaces"], ["get", "list", "watch"]),
            _rule("", ["events"], ["create", "patch"]),
            # Which Services there are, who answers for them, and where their addresses are.
            _rule("", ["services"], ["list", "watch"]),
            _rule("discovery.k8s.io", ["endpointslices"], ["list", "watch"]),
            _rule("networking.k8s.io", ["servicecidrs"], ["list", "watch"]),
        ),
        _cluster_binding(AGENT),
        _role(
            AGENT,
            # Where ipamd is.
            _rule("discovery.k8s.io", ["endpointslices"], ["get", "list", "watch"]),
        ),
        _binding(AGENT),
        _cluster_role(
            IPAMD,
            # Whose token a node shows, and whether a node is gone or out of service.
            _rule("authentication.k8s.io", ["tokenreviews"], ["create"]),
            _rule("", ["nodes"], ["get", "list", "watch"]),
            # Which Services ask for an address of a pool, and to tell them which they have.
            _rule("", ["services"], ["get", "list", "watch"]),
            _rule("", ["services/status"], ["patch"]),
            _rule("", ["events"], ["create", "patch"]),
        ),
        _cluster_binding(IPAMD),
        _role(
            BEGIN,
            # RBAC cannot limit what is created by its name.
            _rule("", ["secrets", "configmaps"], ["create"]),
            _rule("", ["secrets"], ["get"], names=[CA]),
            _rule("", ["configmaps"], ["get"], names=[CA, RECORD]),
        ),
        _binding(BEGIN),
        _cluster_role(
            BEGIN,
            # Whether pools overlap what nodes and Services have, or pods of another network.
            _rule("", ["nodes", "pods"], ["list"]),
            _rule("networking.k8s.io", ["servicecidrs"], ["list"]),
        ),
        _cluster_binding(BEGIN),
        *(own_node_alone() if policy else ()),
    ]


def own_node_alone() -> list[Object]:
    """RBAC lets every agent patch every Node; this lets it patch the one that its token names."""
    named = f'request.userInfo.extra["{_NODE_NAME}"]'
    policy = {
        "apiVersion": f"{_ADMISSION}/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": AGENT},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["UPDATE"],
                        "resources": ["nodes", "nodes/status"],
                    }
                ]
            },
            "matchConditions": [
                {
                    "name": "is-an-agent",
                    "expression": "request.userInfo.username == "
                    f'"system:serviceaccount:{NAMESPACE}:{AGENT}"',
                }
            ],
            "validations": [
                {
                    "expression": f'"{_NODE_NAME}" in request.userInfo.extra && '
                    f"request.name in {named}",
                    "message": "an agent changes the Node that it runs on, and no other",
                    "reason": "Forbidden",
                }
            ],
        },
    }
    binding = {
        "apiVersion": f"{_ADMISSION}/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": AGENT},
        "spec": {"policyName": AGENT, "validationActions": ["Deny"]},
    }
    return [policy, binding]


def namespace() -> Object:
    """Pods of the host's network may not run in a namespace of the stricter levels."""
    labels = {f"pod-security.kubernetes.io/{mode}": "privileged" for mode in ("enforce", "warn")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": labels},
    }


def _rule(group: str, resources: list[str], verbs: list[str], names: Sequence[str] = ()) -> Object:
    rule: Object = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return rule | ({"resourceNames": list(names)} if names else {})


def _named(version: str, kind: str, name: str) -> Object:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
    }


_RBAC, _ADMISSION = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
# In each token of a pod since Kubernetes 1.30.
_NODE_NAME = "authentication.kubernetes.io/node-name"


def _role(name: str, *rules: Object) -> Object:
    return _named(f"{_RBAC}/v1", "Role", name) | {"rules": list(rules)}


def _cluster_role(name: str, *rules: Object) -> Object:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": list(rules),
    }


def _binding(name: str) -> Object:
    return _named(f"{_RBAC}/v1", "RoleBinding", name) | _bound("Role", name)


def _cluster_binding(name: str) -> Object:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
    } | _bound("ClusterRole", name)


def _bound(kind: str, name: str) -> Object:
    return {
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
    }
