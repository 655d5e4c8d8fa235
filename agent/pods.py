"""What the pods of this node ask for: from the watch's copy; where that is silent, one question.

    copy of the watch ──unknown──► the API server ──away──► what was kept on disk ──unknown──► 11

A pod that the API server does not know asks for nothing (a static pod on its first start, a
sandbox that somebody makes by hand).  Where nobody can say, the ADD fails with 11 and the kubelet
tries again: a pod that asked for an address or a pool must not live with another one.
"""

from collections.abc import Callable, Mapping

from agent.known import NONE, Annotations, Known, KnownPod
from cni.args import Pod
from cni.errors import CNIError, ErrorCode
from cni.wishes import Wishes, is_for_us, parse, unheeded
from kube import objects

_STATIC = "kubernetes.io/config.hash"
"""Of a static pod's mirror: the uid that the kubelet gave the pod itself."""


class CannotSay(Exception):
    """The API server does not answer, or does not let us ask."""


# Raises CannotSay; None where there is none.
AskPod = Callable[[str, str, float], KnownPod | None]
AskNamespace = Callable[[str, float], Annotations | None]


def wanted(said: Mapping[str, str] | None) -> Annotations:
    """The annotations that are for us."""
    found = {key: text for key, text in (said or {}).items() if is_for_us(key)}
    return found or NONE


def known_pod(pod: objects.Pod) -> KnownPod:
    meta = pod.metadata
    own = (meta.annotations or {}).get(_STATIC, "")
    return KnownPod(
        uids=(meta.uid, own) if own else (meta.uid,), annotations=wanted(meta.annotations)
    )


class Pods:
    """`wishes` is called by verbs, in threads; the copies are written by the event loop."""

    def __init__(
        self,
        pods: Mapping[str, KnownPod],
        namespaces: Mapping[str, Annotations],
        kept: Known,
        ask_pod: AskPod,
        ask_namespace: AskNamespace,
        *,
        tell: Callable[[Pod, str], None] = lambda pod, message: None,
    ) -> None:
        """*tell* lets the pod's user know what is not heeded."""
        self._pods, self._namespaces = pods, namespaces
        self._kept = kept
        self._ask_pod, self._ask_namespace = ask_pod, ask_namespace
        self._tell = tell

    def wishes(self, pod: Pod, *, within_s: float) -> Wishes:
        """CNIError 11 where nobody can say, 7 for what is malformed."""
        try:
            said = self._of_pod(pod, within_s), self._of_namespace(pod, within_s)
        except CannotSay as exc:
            raise CNIError(
                ErrorCode.TRY_AGAIN_LATER,
                f"what pod {pod.namespace}/{pod.name} asks for is not known",
                str(exc),
            ) from exc
        for message in unheeded(pod, *said):
            self._tell(pod, message)
        return parse(pod, *said)

    def _of_pod(self, pod: Pod, within_s: float) -> Annotations:
        name = f"{pod.namespace}/{pod.name}"
        if (found := self._pods.get(name)) and _is(found, pod):
            return found.annotations
        try:
            asked = self._ask_pod(pod.namespace, pod.name, within_s)
        except CannotSay:
            if (kept := self._kept.pods.get(name)) and _is(kept, pod):
                return kept.annotations
            raise
        return asked.annotations if asked and _is(asked, pod) else NONE

    def _of_namespace(self, pod: Pod, within_s: float) -> Annotations:
        if (found := self._namespaces.get(pod.namespace)) is not None:
            return found
        try:
            return self._ask_namespace(pod.namespace, within_s) or NONE
        except CannotSay:
            if (kept := self._kept.namespaces.get(pod.namespace)) is not None:
                return kept
            raise


def _is(known: KnownPod, pod: Pod) -> bool:
    """Whether this is the pod, and not one that had its name before."""
    return not pod.uid or pod.uid in known.uids
