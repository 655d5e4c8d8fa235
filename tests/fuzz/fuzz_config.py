"""Fuzz what a runtime sends: standard input, CNI_ARGS, and the environment.

    python tests/fuzz/fuzz_config.py -max_total_time=20

is guided by coverage where atheris is installed (other libFuzzer options and corpus folders may
follow).  Elsewhere Hypothesis tries as long, without a guide.  An input is CNI_ARGS, a NUL, and
standard input; its length chooses the verb.  A finding is any exception but CNIError.
"""

import os
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
SEEDS = ROOT / "tests" / "data" / "stdin"
CODES = {1, 2, 4, 6, 7}

try:
    import atheris
except ImportError:
    atheris = None

if atheris:
    with atheris.instrument_imports(include=["cni", "ipam"]):
        from cni import config, environment, errors, result, versions
else:
    from cni import config, environment, errors, result, versions

VERBS = [verb for verb in environment.Verb if verb is not environment.Verb.VERSION]


def one_input(data: bytes) -> None:
    """Read *data* in every way a verb would; what was read must be spelled in its version."""
    args, _, stdin = data.partition(b"\0")
    verb = VERBS[len(data) % len(VERBS)]
    variables = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/a",
        "CNI_IFNAME": args[:16].decode(errors="surrogateescape"),
        "CNI_ARGS": args.decode(errors="surrogateescape"),
        "CNI_PATH": "/opt/cni/bin",
    }
    call = environment.Call(command=verb, args=args.decode(errors="replace"))
    try:
        environment.check(variables)
    except errors.CNIError as error:
        check(error, stdin)
    for program in config.Program:
        try:
            config.identify(stdin, verb)
            read = config.parse(stdin, call, program)
            hash(read)
            result.encode(read.prev_result or result.Result(), read.cni_version)
        except errors.CNIError as error:
            check(error, stdin)


def check(error: errors.CNIError, stdin: bytes) -> None:
    """An error is rendered in a version of ours, with one of the codes for bad input."""
    version = config.version_of(stdin)
    errors.error_document(error, version)
    if error.code not in CODES or version not in versions.SUPPORTED:
        raise AssertionError(f"code {error.code} in version {version}") from error


def with_guide(argv: list[str]) -> NoReturn:
    # libFuzzer keeps what it finds in the first folder, and leaves by _exit.
    corpus = Path(tempfile.gettempdir()) / f"isthmus-fuzz-config-{os.getuid()}"
    corpus.mkdir(exist_ok=True)
    for seed in SEEDS.iterdir():
        (corpus / seed.name).write_bytes(b"IgnoreUnknown=1;IP=10.1.0.9\0" + seed.read_bytes())
    atheris.Setup([*argv, str(corpus)], one_input)
    atheris.Fuzz()


def without_guide(seconds: float) -> None:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    until = time.monotonic() + seconds
    seeds = st.sampled_from([path.read_bytes() for path in sorted(SEEDS.iterdir())])
    cuts = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)

    @settings(
        max_examples=1_000,
        deadline=timedelta(seconds=5),
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(args=st.binary(max_size=40), seed=seeds, cut=cuts, graft=seeds | st.binary(max_size=40))
    def damaged(args: bytes, seed: bytes, cut: list[float], graft: bytes) -> None:
        first, last = (int(place * len(seed)) for place in cut)
        one_input(args + b"\0" + seed[:first] + graft + seed[last:])

    while time.monotonic() < until:
        damaged()


def main(argv: list[str]) -> None:
    if atheris:
        with_guide(argv)
    limits = [float(word.partition("=")[2]) for word in argv if word.startswith("-max_total_time=")]
    without_guide(limits[0] if limits else 20.0)


if __name__ == "__main__":
    main(sys.argv)
