"""What every fuzzer here needs: coverage as its guide where atheris is installed, else luck.

    with instrumented("cni"):
        from cni import args
    run(one_input, "args", [b"a seed"])

Options are libFuzzer's; without a guide only -max_total_time counts.  A finding is an exception.
"""

import random
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

try:
    import atheris
except ImportError:
    atheris = None


def instrumented(*packages: str) -> AbstractContextManager[object]:
    """Imports of *packages* in the block tell the guide where an input went."""
    found: AbstractContextManager[object] = (
        atheris.instrument_imports(include=list(packages)) if atheris else nullcontext()
    )
    return found


def run(one_input: Callable[[bytes], None], name: str, seeds: Iterable[bytes]) -> None:
    """Try inputs for as long as the command line says, or a finding ends the process."""
    if not atheris:
        _without_guide(one_input, list(seeds))
        return
    # libFuzzer keeps what it finds in the first folder, and leaves by _exit.
    corpus = ROOT / "build" / "fuzz" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    # An input that hangs is a finding.
    atheris.Setup([*sys.argv, "-timeout=20", "-rss_limit_mb=1024", str(corpus)], one_input)
    atheris.Fuzz()


def _without_guide(one_input: Callable[[bytes], None], seeds: list[bytes]) -> None:
    limits = [word.partition("=")[2] for word in sys.argv if word.startswith("-max_total_time=")]
    until = time.monotonic() + float(limits[0] if limits else 20)
    chance = random.Random(7)
    while time.monotonic() < until:
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(8)):
            at = chance.randrange(len(data) + 1)
            data[at : at + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
        one_input(bytes(data))
