"""The slots that endpoints have in the kernel's maps, for an agent that begins anew.  Pure."""

import sys
from collections import defaultdict
from collections.abc import Collection, Iterable

from dataplane.nft.objects import Element, Family
from proxy.model import Service, TrafficPolicy
from proxy.plan import Backend, Frontend, ListKey, Planned, backend_of, key_of, ports_of
from proxy.tables import LOCAL_SLOT, MAPS

_NAMES = frozenset({MAPS[4].endpoints.name, MAPS[4].nodeport_endpoints.name})


class Former:
    """Lists of backends by frontend, as some elements say."""

    def __init__(self, found: Iterable[Element]) -> None:
        self._lists: dict[tuple[Family, bytes], dict[int, bytes]] = defaultdict(dict)
        for each in found:
            if each.of.name in _NAMES:
                slot = int.from_bytes(each.key[-4:], sys.byteorder)
                self._lists[each.of.family, each.key[:-4]][slot] = each.data

    def planned(self, service: Service, owned: Collection[Frontend]) -> Planned:
        """*service* with the slots that its frontends have; where they differ, the first's."""
        slots: dict[ListKey, tuple[Backend, ...]] = {}
        for frontend, port in ports_of(service, owned):
            members = self._of(frontend)
            if not members:
                continue
            inner = frontend.address is not None and frontend.address in service.cluster_ips
            is_inner_local = inner and service.internal_policy is TrafficPolicy.LOCAL
            for is_second in (False, True):
                key = ListKey(
                    port.name, port.protocol, frontend.version, is_second or is_inner_local
                )
                found = tuple(
                    backend_of(members[slot])
                    for slot in sorted(members)
                    if (slot >= LOCAL_SLOT) is is_second
                )
                if found:
                    slots.setdefault(key, found)
        return Planned(service, tuple(owned), slots)

    def _of(self, frontend: Frontend) -> dict[int, bytes]:
        # Keys of NodePorts are shorter than those with an address.
        family = MAPS[frontend.version].endpoints.family
        return self._lists.get((family, key_of(frontend)), {})
