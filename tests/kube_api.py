"""An API server of a few resources, for tests, held to the same contract as a real one.

It keeps objects as JSON and speaks HTTP/1.1 over real sockets: pages, watches with bookmarks,
merge and strategic patches, token reviews.  What a test wants to go wrong it says by `trouble`.
"""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from kube.access import Access, Material

Json = dict[str, Any]
NODES, PODS, NAMESPACES = "/api/v1/nodes", "/api/v1/pods", "/api/v1/namespaces"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
SERVICES = "/api/v1/services"
SERVICE_CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"
_COLLECTIONS = frozenset({NODES, PODS, NAMESPACES, SLICES, SERVICES, SERVICE_CIDRS})


class Refusal(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    def body(self) -> bytes:
        document = {"kind": "Status", "code": self.code, "message": self.message}
        return json.dumps(document).encode()


@dataclass(slots=True)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    params: Mapping[str, str]
    token: str
    content: str
    body: Any

    @property
    def is_watch(self) -> bool:
        return self.params.get("watch") == "true"


@dataclass(slots=True)
class Change:
    revision: int
    resource: str
    type: str
    object: Json


@dataclass
class FakeAPI:
    """*tokens* None: everybody is let in; *denied* says whether a request is forbidden."""

    tokens: set[str] | None = None
    denied: Callable[[Asked], bool] = lambda asked: False
    trouble: Callable[[Asked], int] = lambda asked: 0
    reviews: dict[str, Json] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    port: int = 0

    def __post_init__(self) -> None:
        self.asked: list[Asked] = []
        self.objects: dict[str, dict[str, Json]] = {}
        self.revision = 100
        self.connections = 0
        self._history: list[Change] = []
        self._forgotten = 0
        self._moved = asyncio.Event()
        self._serving: set[asyncio.Task[Any]] = set()
        self._watchers: set[asyncio.StreamWriter] = set()
        self._snapshots: dict[str, tuple[int, list[Json]]] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "FakeAPI":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def access(self, token: str = "") -> Access:
        return Access(server=self.url, token=Material(data=token.encode()))

    # What a test does to the cluster.

    def put(self, resource: str, item: Json) -> Json:
        """Create or replace *item*, as {"metadata": {"name": ...}, ...}."""
        meta = item["metadata"]
        key = f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else meta["name"]
        kept = self.objects.setdefault(resource, {})
        old = kept.get(key)
        self.revision += 1
        uid = meta.get("uid") or (old["metadata"]["uid"] if old else f"uid-{self.revision}")
        stamp = {"uid": uid, "resourceVersion": str(self.revision)}
        kept[key] = {**item, "metadata": {**meta, **stamp}}
        self._note(resource, "MODIFIED" if old else "ADDED", kept[key])
        return kept[key]

    def delete(self, resource: str, key: str) -> None:
        item = self.objects[resource].pop(key)
        self.revision += 1
        meta = {**item["metadata"], "resourceVersion": str(self.revision)}
        self._note(resource, "DELETED", {**item, "metadata": meta})

    def forget(self) -> None:
        """Compact: what happened until now can be watched no more."""
        self._forgotten = self.revision
        self._history.clear()
        self._snapshots.clear()

    def bookmark(self, resource: str) -> None:
        self.revision += 1
        self._note(resource, "BOOKMARK", {"metadata": {"resourceVersion": str(self.revision)}})

    def cut(self) -> None:
        """End every watch in the middle, as a proxy or a crash does."""
        for writer in list(self._watchers):
            writer.transport.abort()

    def say(self, resource: str, line: Json) -> None:
        """Let every watch tell this, whatever it is."""
        self._history.append(Change(self.revision + 1, resource, line["type"], line["object"]))
        self.revision += 1
        self._wake()

    def count(self, method: str, path: str = "", *, watch: bool = False) -> int:
        return sum(
            asked.method == method and asked.path.startswith(path) and asked.is_watch == watch
            for asked in self.asked
        )

    def _note(self, resource: str, kind: str, item: Json) -> None:
        self._history.append(Change(self.revision, resource, kind, item))
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    # HTTP.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the streams' own callback would log that a task was cancelled
        finally:
            writer.transport.abort()
            self._serving.discard(task)
            self._watchers.discard(writer)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path, _, query = target.partition("?")
        asked = Asked(
            method=method,
            path=unquote(path),
            params=dict(parse_qsl(query)),
            token=headers.get("authorization", "").removeprefix("Bearer "),
            content=headers.get("content-type", ""),
            body=json.loads(body) if body else None,
        )
        self.asked.append(asked)
        try:
            self._admit(asked)
            if asked.is_watch:
                await self._watch(asked, writer)
                return True
            status, answer = (201 if method == "POST" else 200), json.dumps(self._answer(asked))
        except Refusal as exc:
            status, answer = exc.code, exc.body().decode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(answer)}\r\n\r\n".encode())
        writer.write(answer.encode())
        await writer.drain()
        return True

    def _admit(self, asked: Asked) -> None:
        if self.tokens is not None and asked.token not in self.tokens:
            raise Refusal(401, "Unauthorized")
        if self.denied(asked):
            raise Refusal(403, f"cannot {asked.method} {asked.path}")
        if code := self.trouble(asked):
            raise Refusal(code, "trouble on demand")

    async def _watch(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        after = int(asked.params["resourceVersion"])
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if after < self._forgotten:
            status = {"kind": "Status", "code": 410, "message": f"too old: {after}"}
            _chunk(writer, {"type": "ERROR", "object": status})
        else:
            self._watchers.add(writer)
            try:
                async with asyncio.timeout(float(asked.params["timeoutSeconds"])):
                    await self._follow(asked, after, writer)
            except TimeoutError:
                pass
            self._watchers.discard(writer)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _follow(self, asked: Asked, after: int, writer: asyncio.StreamWriter) -> None:
        while True:
            moved = self._moved
            for change in [one for one in self._history if one.revision > after]:
                after = change.revision
                is_change = change.type in ("ADDED", "MODIFIED", "DELETED")
                if change.resource != asked.path:
                    continue
                if not is_change or _selected(change.object, asked.params):
                    _chunk(writer, {"type": change.type, "object": change.object})
                elif change.type == "MODIFIED":
                    # It may have been selected before; who never saw it has nothing to delete.
                    _chunk(writer, {"type": "DELETED", "object": change.object})
            await writer.drain()
            await moved.wait()

    def _answer(self, asked: Asked) -> Json:
        match asked.method:
            case "GET" if asked.path in self.objects or asked.path in _COLLECTIONS:
                return self._list(asked)
            case "GET":
                return self._find(asked.path)[1]
            case "POST" if asked.path == REVIEWS:
                return self._review(asked.body)
            case "POST":
                return self._create(asked)
            case "PATCH":
                return self._patch(asked)
        raise Refusal(405, "not known here")

    def _list(self, asked: Asked) -> Json:
        limit = int(asked.params.get("limit") or "0")
        if go_on := asked.params.get("continue"):
            if go_on not in self._snapshots:
                raise Refusal(410, "The provided continue parameter is too old")
            revision, items = self._snapshots[go_on]
        else:
            kept = self.objects.get(asked.path, {})
            revision = self.revision
            items = [kept[key] for key in sorted(kept) if _selected(kept[key], asked.params)]
        meta: Json = {"resourceVersion": str(revision)}
        if limit and len(items) > limit:
            meta["continue"] = f"{asked.path}-{revision}-{len(items)}"
            self._snapshots[meta["continue"]] = (revision, items[limit:])
            items = items[:limit]
        return {"kind": "List", "metadata": meta, "items": items}

    def _find(self, path: str) -> tuple[str, Json]:
        """The resource and the object at *path*, which may end in /status."""
        parts = path.removesuffix("/status").split("/")
        resource, key = "/".join(parts[:-1]), parts[-1]
        if "namespaces" in parts and parts[-2] != "namespaces":
            at = parts.index("namespaces")
            resource = "/".join([*parts[:at], parts[-2]])
            key = f"{parts[at + 1]}/{parts[-1]}"
        found = self.objects.get(resource, {}).get(key)
        if found is None:
            raise Refusal(404, f'{parts[-2]} "{parts[-1]}" not found')
        return resource, found

    def _create(self, asked: Asked) -> Json:
        parts = asked.path.split("/")
        at = parts.index("namespaces") if "namespaces" in parts[:-1] else None
        resource = asked.path if at is None else "/".join([*parts[:at], parts[-1]])
        meta = dict(asked.body["metadata"])
        if "name" not in meta:
            meta["name"] = f"{meta.pop('generateName')}{self.revision}"
        if at is not None:
            meta["namespace"] = parts[at + 1]
        key = f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else meta["name"]
        if key in self.objects.get(resource, {}):
            raise Refusal(409, f"{meta['name']} already exists")
        return self.put(resource, {**asked.body, "metadata": meta})

    def _patch(self, asked: Asked) -> Json:
        resource, old = self._find(asked.path)
        wanted = (asked.body.get("metadata") or {}).get("resourceVersion")
        if wanted not in (None, old["metadata"]["resourceVersion"]):
            raise Refusal(409, "the object has been modified")
        strategic = asked.content == "application/strategic-merge-patch+json"
        new = _merged(old, asked.body, strategic=strategic)
        if resource == NODES:
            _check_node(old, new)
        return self.put(resource, new)

    def _review(self, body: Json) -> Json:
        """As for an authenticator that knows audiences: those of both, or no."""
        known = self.reviews.get(body["spec"]["token"])
        if known is None:
            return {"status": {"authenticated": False, "error": "invalid bearer token"}}
        wanted = set(body["spec"]["audiences"])
        shared = sorted(wanted & set(known["audiences"]))
        if not shared:
            why = f"token audiences {known['audiences']} is invalid for {sorted(wanted)}"
            return {"status": {"authenticated": False, "error": why}}
        return {"status": {"authenticated": True, **known, "audiences": shared}}


async def until(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    """Return once *holds* does; fail where it does not."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not holds():
        assert loop.time() < end, "it never held"
        await asyncio.sleep(0.005)


def _chunk(writer: asyncio.StreamWriter, line: Json) -> None:
    data = json.dumps(line).encode() + b"\n"
    # In two, so that a reader must put lines together.
    for piece in (data[:7], data[7:]):
        writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")


def _selected(item: Json, params: Mapping[str, str]) -> bool:
    for clause in filter(None, params.get("fieldSelector", "").split(",")):
        name, _, value = clause.partition("=")
        found: Any = item
        for part in name.split("."):
            found = found.get(part, {})
        if found != value:
            return False
    labels = item["metadata"].get("labels") or {}
    clauses = list(filter(None, params.get("labelSelector", "").split(",")))
    if any(clause[1:] in labels for clause in clauses if clause.startswith("!")):
        return False
    wanted = (clause.split("=") for clause in clauses if not clause.startswith("!"))
    return all(labels.get(name) == value for name, value in wanted)


def _merged(old: Any, patch: Any, *, strategic: bool) -> Any:
    """RFC 7386; *strategic*: conditions are merged by their type, as the API server does."""
    if not isinstance(patch, dict) or not isinstance(old, dict):
        return patch
    new = dict(old)
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif strategic and key == "conditions":
            by_type = {one["type"]: one for one in old.get(key) or ()}
            for one in value:
                by_type[one["type"]] = {**by_type.get(one["type"], {}), **one}
            new[key] = list(by_type.values())
        else:
            new[key] = _merged(old.get(key), value, strategic=strategic)
    return new


def _check_node(old: Json, new: Json) -> None:
    """The API server's rules on podCIDRs."""
    before, after = (one.get("spec", {}) for one in (old, new))
    cidrs = after.get("podCIDRs") or []
    if before.get("podCIDRs") and cidrs != before["podCIDRs"]:
        raise Refusal(422, "spec.podCIDRs: Forbidden: node updates may not change podCIDR")
    if cidrs and after.get("podCIDR") != cidrs[0]:
        raise Refusal(422, "spec.podCIDR: must be the first of podCIDRs")
