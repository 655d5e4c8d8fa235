"""Fuzz the socket's protocol and spool entries.

    python tests/fuzz/fuzz_frames.py -max_total_time=20

takes the options of libFuzzer.  A finding is any exception but FrameError, and a frame that
says something else when it is written again.
"""

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

try:
    import atheris
except ImportError:
    sys.stderr.write("frames are not fuzzed: there is no atheris for this Python and machine\n")
    sys.exit(0)

with atheris.instrument_imports(include=["cni"]):
    from cni import frames, request

CORPUS = ROOT / "build" / "fuzz" / "frames"
SEED = request.Request(
    program="isthmus",
    environment={"CNI_COMMAND": "DEL", "CNI_IFNAME": "eth0"},
    stdin=b'{"name": "shop"}',
    started_ns=1,
    boot_id="0" * 36,
)


def one_input(data: bytes) -> None:
    with suppress(frames.FrameError):
        frames.decode_response(data)
    with suppress(frames.FrameError):
        header, read = parse(data)
        _, again = parse(frames.encode_request(read, header.kind))
        # Bytes of a boot id that no kernel writes are replaced once.
        if replace(again, boot_id=read.boot_id) != read:
            raise AssertionError(f"{read} became {again}")


def parse(data: bytes) -> tuple[frames.Header, request.Request]:
    header = frames.parse_header(data[: frames.HEADER_SIZE])
    return header, frames.parse_body(header, data[frames.HEADER_SIZE :])


if __name__ == "__main__":
    CORPUS.mkdir(parents=True, exist_ok=True)
    (CORPUS / "seed").write_bytes(frames.encode_request(SEED))
    atheris.Setup([*sys.argv, str(CORPUS)], one_input)
    atheris.Fuzz()
