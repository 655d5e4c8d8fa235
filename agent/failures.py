"""ADDs that failed, as events on their pods: what a user of the cluster should see."""

import json

from cni.args import parse_args
from cni.errors import CNIError, ErrorCode
from cni.request import Request, Response
from kube.events import About, Told

_SHORT = 16  # characters of an id that may well be part of something else
_REASONS = {
    ErrorCode.UNSUPPORTED_FIELD: "InvalidNetwork",
    ErrorCode.DECODING_FAILURE: "InvalidNetwork",
    ErrorCode.INVALID_CONFIG: "InvalidNetwork",
    ErrorCode.TRY_AGAIN_LATER: "NetworkNotReady",
    ErrorCode.NO_FREE_ADDRESS: "NoFreeAddress",
    ErrorCode.ADDRESS_IN_USE: "AddressInUse",
    ErrorCode.DATAPLANE: "NetworkFailed",
}


def told(request: Request, response: Response) -> Told | None:
    """The event that a failed ADD of a pod is worth, if any.

    Without the container's id, so that each new attempt of a kubelet says the same.
    """
    if not response.status or request.environment.get("CNI_COMMAND") != "ADD":
        return None
    try:
        args = parse_args(request.environment.get("CNI_ARGS", ""))
        document = json.loads(response.stdout)
        reason = _REASONS[ErrorCode(document["code"])]
    except (CNIError, ValueError, KeyError, TypeError):
        return None
    name, namespace = args.get("K8S_POD_NAME", ""), args.get("K8S_POD_NAMESPACE", "")
    if not name or not namespace:
        return None
    message = ": ".join(filter(None, (document.get("msg"), document.get("details"))))
    container = request.environment.get("CNI_CONTAINERID", "")
    if len(container) > _SHORT:
        message = message.replace(container, "(sandbox)")
    uid = args.get("K8S_POD_UID", "")
    about = About(kind="Pod", name=name, namespace=namespace, uid=uid)
    return Told(about=about, reason=reason, message=message)
