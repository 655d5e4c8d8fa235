"""Network configurations that several tests start from, and what they attach."""

from collections.abc import Callable
from typing import Any

WITHOUT_CHECK = ("0.1.0", "0.2.0", "0.3.0", "0.3.1")
WITH_CHECK = ("0.4.0", "1.0.0", "1.1.0")

IPV4 = {"subnet": "10.66.0.0/24"}
IPV6 = {"subnet": "fd66::/64"}
CAPABILITIES = dict.fromkeys(
    ("portMappings", "bandwidth", "ipRanges", "ips", "mac", "dns", "aliases"), True
)

WriteNetwork = Callable[[dict[str, Any]], None]


def isthmus(**more: Any) -> dict[str, Any]:
    """Return the plugin's configuration: a dual-stack bridge with masquerade and default routes."""
    ours = {
        "type": "isthmus",
        "isDefaultGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "capabilities": CAPABILITIES,
        "ipam": {"type": "isthmus", "ranges": [[IPV4], [IPV6]]},
    }
    return ours | more


def conflist(*plugins: dict[str, Any], version: str = "1.1.0") -> dict[str, Any]:
    return {"cniVersion": version, "name": "shop", "plugins": list(plugins)}
