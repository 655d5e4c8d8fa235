"""What a cluster needs once: authority, generation, pools."""

import asyncio
import base64
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.answers import Problem
from cli.cluster import Cluster
from cli.ipam_begin import Record, begin, begin_cluster, identify
from cli.pins import InUse
from ipam.cluster import Pool
from ipam.signing import Issued
from ipam.tls import TLSFiles
from kube.errors import Conflict, NotFound
from tests.unit.cli.conftest import Served

POOL = Pool(name="ipv4", cidr=ip_network("10.244.0.0/16"), block_length=24)


class Server:
    """An API server of Secrets and ConfigMaps, as far as it is asked."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}

    async def create(self, path: str, body: Any, kind: type) -> Any:
        where = f"{path}/{body['metadata']['name']}"
        if where in self.objects:
            raise Conflict(where)
        self.objects[where] = body
        return body

    async def get(self, path: str, kind: type) -> Any:
        if path not in self.objects:
            raise NotFound(path)
        return self.objects[path]


def authority(server: Server) -> Issued:
    return asyncio.run(Record(server, "isthmus").authority())  # type: ignore[arg-type]


def test_the_authority_is_made_once_and_its_certificate_told_to_all() -> None:
    server = Server()

    first, second = authority(server), authority(server)

    secret = server.objects["/api/v1/namespaces/isthmus/secrets/isthmus-ca"]
    told = server.objects["/api/v1/namespaces/isthmus/configmaps/isthmus-ca"]
    assert first == second
    assert base64.b64decode(secret["data"]["ca.key"]) == first.key
    assert told["data"] == {"ca.pem": first.certificate.decode()}


def test_the_generation_that_is_kept_is_found_again() -> None:
    record = Record(Server(), "isthmus")  # type: ignore[arg-type]

    before = asyncio.run(record.generation())
    asyncio.run(record.keep("f00d"))

    assert (before, asyncio.run(record.generation())) == ("", "f00d")


def test_the_identity_is_an_administrators_and_the_authoritys_key_does_not_stay(
    tmp_path: Path,
) -> None:
    identify(tmp_path, authority(Server()))

    files = TLSFiles(
        certificate=tmp_path / "admin.pem", key=tmp_path / "admin.key", ca=tmp_path / "ca.pem"
    )
    assert files.read().certificate
    assert not (tmp_path / "ca.key").exists()


def test_a_new_cluster_has_a_generation_and_its_pools(cluster: Served) -> None:
    asked = Cluster((cluster.endpoint,), cluster.identity)

    generation = begin_cluster(asked, "", [POOL])
    again = begin_cluster(asked, generation, [POOL])

    assert again == generation == asked.show("generation")
    assert [row["cidr"] for row in asked.show("pools")] == ["10.244.0.0/16"]


def test_an_etcd_that_was_emptied_is_refused(cluster: Served) -> None:
    asked = Cluster((cluster.endpoint,), cluster.identity)

    with pytest.raises(Problem, match="generation f00d is recorded"):
        begin_cluster(asked, "f00d", [POOL])

    assert asked.show("generation") == ""


@pytest.mark.parametrize(
    "pool", ["ipv4", "ipv4=10.0.0.0/16", "ipv4=10.0.0.0/16:x", "a=10.0.0.1/8:9"]
)
def test_a_malformed_pool_is_a_matter_of_usage(pool: str) -> None:
    done = CliRunner().invoke(begin, ["--pool", pool])

    assert done.exit_code == 2
    assert "as ipv4=10.244.0.0/16:24" in done.output


def test_a_pool_that_services_have_is_refused() -> None:
    server = Server()
    server.objects["/api/v1/nodes"] = {"items": []}
    server.objects["/apis/networking.k8s.io/v1/servicecidrs"] = {
        "items": [{"spec": {"cidrs": ["10.244.0.0/20"]}}]
    }

    with pytest.raises(Problem, match=r"pool ipv4 .* overlaps 10\.244\.0\.0/20"):
        asyncio.run(Record(server, "isthmus").check([POOL]))  # type: ignore[arg-type]


def test_blocks_that_nodes_have_already_are_theirs_before_there_is_the_pool(
    cluster: Served,
) -> None:
    asked = Cluster((cluster.endpoint,), cluster.identity)
    used = [InUse(ip_network("10.244.7.0/24"), "a", "spec.podCIDRs of Node a")]

    begin_cluster(asked, "", [POOL], used)

    rows = asked.show("blocks")
    assert [(row["cidr"], row["node"], row["pool"]) for row in rows] == [
        ("10.244.7.0/24", "a", "ipv4")
    ]
