"""ipamd's metrics page: what it counts anyway, in Prometheus' text form."""

from collections.abc import Callable, Iterator

from ipam.authority import Counts


class Collector:
    """Reads the numbers when the page is asked for (prometheus_client's collector protocol)."""

    def __init__(self, read: Callable[[], Counts]) -> None:
        self._read = read

    def collect(self) -> Iterator[object]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counts = self._read()
        for name, text, number in (
            ("claims", "Claims granted", counts.claims),
            (
                "conflicts",
                "Transactions that another was quicker than, tried again",
                counts.conflicts,
            ),
            ("transactions", "Transactions sent to etcd", counts.transactions),
            ("refused", "Calls refused", counts.refused),
            ("second_boots", "Of these, of a node that is alive elsewhere", counts.second_boots),
        ):
            yield CounterMetricFamily(f"isthmus_ipamd_{name}", text, value=number)
        for name, text, value in (
            ("streams", "Nodes that watch the table here", counts.streams),
            ("nodes", "Nodes registered", counts.nodes),
            ("blocks", "Blocks that nodes hold", counts.blocks),
            (
                "oldest_unheard_seconds",
                "For how long the most silent node was not heard of",
                counts.oldest_unheard_s,
            ),
            ("frozen", "Whether claims wait for an operator", counts.frozen),
            ("forgetful", "Whether this replica cannot write its state_dir", counts.forgetful),
            ("synced", "Whether this replica follows the store", counts.synced),
        ):
            yield GaugeMetricFamily(f"isthmus_ipamd_{name}", text, value=float(value))
        free = GaugeMetricFamily("isthmus_ipamd_free_blocks", "Blocks to be had", labels=["pool"])
        for pool, number in sorted(counts.free.items()):
            free.add_metric([pool], number)
        yield free
