"""The picture at the end of the demonstration.  Everything here is a function of its arguments."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One container: its namespace, its addresses, and the host side of its veth."""

    title: str
    namespace: str
    addresses: tuple[str, ...]
    host_side: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that is drawn."""

    outside: str
    host: str
    uplink: tuple[str, ...]
    beyond: tuple[str, ...]
    bridge: tuple[str, ...]
    rules: tuple[str, ...]
    pods: tuple[Pod, ...]


def draw(scene: Scene) -> str:
    """The namespaces as boxes, the links between them as lines."""
    pods = [
        _box([pod.title, pod.namespace, *_interface("eth0", pod.addresses)]) for pod in scene.pods
    ]
    width = max(sum(len(box[0]) for box in pods) + 2 * (len(pods) - 1), 60)
    stems = _stems(pods)
    sides = _at(stems, [pod.host_side for pod in scene.pods])
    host = _box(
        [
            *_interface("uplink", scene.uplink),
            f"the host: {scene.host}",
            *(f"  {rule}" for rule in scene.rules),
            *_interface("cni0", scene.bridge),
            "─" * (width - 4),
            sides,
        ],
        width,
    )
    outside = _box(
        [f"beyond the host: {scene.outside}", *_interface("uplink", scene.beyond)], width
    )
    middle = [width // 2]
    lines = [
        *_pierce(outside, bottom=middle),
        _at(middle, ["│"]),
        *_pierce(host, top=middle, bottom=stems),
        _at(stems, ["│"] * len(stems)),
        *_beside(pods),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _interface(name: str, addresses: Sequence[str]) -> list[str]:
    return [f"{name if not at else '':<7}{address}" for at, address in enumerate(addresses)]


def _box(lines: Sequence[str], width: int = 0) -> list[str]:
    inner = max(width - 4, *(len(line) for line in lines))
    return [
        f"┌{'─' * (inner + 2)}┐",
        *(f"│ {line:<{inner}} │" for line in lines),
        f"└{'─' * (inner + 2)}┘",
    ]


def _stems(boxes: Sequence[Sequence[str]]) -> list[int]:
    """Where the line to each box is, when they stand side by side."""
    stems, left = [], 0
    for box in boxes:
        stems.append(left + 4)
        left += len(box[0]) + 2
    return stems


def _at(columns: Sequence[int], words: Sequence[str]) -> str:
    line = ""
    for column, word in zip(columns, words, strict=True):
        line = f"{line:<{column}}{word}"
    return line


def _pierce(box: list[str], *, top: Sequence[int] = (), bottom: Sequence[int] = ()) -> list[str]:
    """The box with its border opened where lines go through."""
    return [_replace(box[0], top, "┴"), *box[1:-1], _replace(box[-1], bottom, "┬")]


def _replace(line: str, columns: Sequence[int], sign: str) -> str:
    return "".join(sign if at in columns else character for at, character in enumerate(line))


def _beside(boxes: Sequence[list[str]]) -> list[str]:
    height = max(len(box) for box in boxes)
    opened = [_pierce(box, top=[4]) for box in boxes]
    padded = [box + [" " * len(box[0])] * (height - len(box)) for box in opened]
    return ["  ".join(row) for row in zip(*padded, strict=True)]
