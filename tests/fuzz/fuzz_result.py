"""Fuzz results: prevResult, and what a foreign IPAM plugin answers, in every version.

    python tests/fuzz/fuzz_result.py -max_total_time=20

A finding is any exception but CNIError, and a result that says something else when it is read
again from what was written of it.  The first byte of an input chooses the versions.
"""

import json

from driver import ROOT, instrumented, run

with instrumented("cni"):
    from cni import document, errors, result, versions

CODES = {6, 7}
PREVIOUS = [path.read_bytes() for path in sorted((ROOT / "tests/data/results").rglob("*.json"))]
# An input that is no text is a recipe: pairs of bytes, each a key and its value, of the section
# that the last key opened.
SECTIONS = ("", "interfaces", "ips", "routes", "dns", "ip4", "ip6")
KEYS = (
    *SECTIONS[1:],
    *("name", "mac", "mtu", "sandbox", "socketPath", "pciID", "address", "gateway", "interface"),
    *("dst", "gw", "advmss", "priority", "table", "scope", "ip", "nameservers", "domain", "DST"),
)
VALUES: tuple[object, ...] = (
    *(
        None,
        0,
        -1,
        1,
        255,
        1 << 32,
        1 << 70,
        1.5,
        True,
        "",
        "eth0",
        "é",
        (),
        {},
        ("a",),
        (1,),
        ({},),
    ),
    *("10.1.0.2/24", "10.1.0.2", "fd00::2/64", "fd00::2", "0.0.0.0/0", "::/0", "::ffff:1.2.3.4/96"),
    *("10.1.0.2/99", "fe80::1%eth0", "1.1.0", "0.1.0", "02:00:00:00:00:01", "10.1.0.7/24"),
)
SEEDS = [
    bytes([number]) + text
    for number, text in enumerate(
        [
            *PREVIOUS,
            b'{"ips":[{"address":"10.1.0.2/24","interface":0}],"interfaces":[{"name":"a"}]}',
            b'{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.2/24","routes":[{"dst":"0.0.0.0/0"}]}}',
            b'{"cniVersion":"1.1.0","routes":[{"dst":"::/0","gw":"fe80::1","mtu":9,"scope":0}]}',
            bytes([1, 1, 12, 17, 2, 18, 3, 21, 15, 18]),
        ]
    )
]


def one_input(data: bytes) -> None:
    """Read *data* in one version and write it in another, back and forth."""
    choice, text = data[:1], data[1:]
    number = choice[0] if choice else 0
    every = versions.SUPPORTED
    source, target = every[number % len(every)], every[number // len(every) % len(every)]
    try:
        if text[:1] != b"{":
            text = json.dumps(_cooked(text)).encode()
        read = result.parse(document.decode(text, "result"), source)
        hash(read)
        written = result.encode(result.Result().extended(read), target)
    except errors.CNIError as error:
        if error.code not in CODES:
            raise AssertionError(f"code {error.code}") from error
        return
    again = result.parse(document.decode(written, "result"), target)
    if result.encode(again, target) != written:
        raise AssertionError(f"{written!r} became {result.encode(again, target)!r}")


def _cooked(recipe: bytes) -> dict[str, object]:
    made: dict[str, object] = {}
    section: dict[str, object] = made
    for which, value in zip(recipe[::2], recipe[1::2], strict=False):
        key = KEYS[which % len(KEYS)]
        if which % len(KEYS) < len(SECTIONS) - 1 and value % 8:
            section = {}
            if key in ("dns", "ip4", "ip6"):
                made[key] = section
            else:
                several = made.setdefault(key, [])
                if isinstance(several, list):
                    several.append(section)
        else:
            section[key] = VALUES[value % len(VALUES)]
    return made


if __name__ == "__main__":
    run(one_input, "result", SEEDS)
