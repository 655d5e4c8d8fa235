"""Fuzz the environment of a call: whatever a runtime sets, the one complaint is CNIError 4.

    python tests/fuzz/fuzz_args.py -max_total_time=20

An input is NAME=VALUE variables with NUL between them, of any bytes.
"""

from driver import instrumented, run

with instrumented("cni"):
    from cni import args, environment, errors
    from cni.document import Section
    from cni.frames import HEADER_SIZE, encode_request, parse_body, parse_header
    from cni.request import Request

SEEDS = [
    b"CNI_COMMAND=ADD\0CNI_CONTAINERID=c1\0CNI_NETNS=/run/netns/a\0CNI_IFNAME=eth0\0"
    b"CNI_PATH=/opt/cni/bin:/x\0CNI_ARGS=IgnoreUnknown=1;IP=10.1.0.9,fd00::9;MAC=02:00:00:00:00:01",
    b"CNI_COMMAND=DEL\0CNI_CONTAINERID=a.b-c_d\0CNI_IFNAME=\xc3\xa9\xc3\xa9\0CNI_ARGS=A=1;B",
    b"CNI_COMMAND=GC\0CNI_PATH=:",
    b"CNI_COMMAND=STATUS\0CNI_NETNS_OVERRIDE=true",
    b"CNI_COMMAND=VERSION\0CNI_CONTAINERID=",
    b"CNI_COMMAND=CHECK\0CNI_IFNAME=..\0=\0CNI_ARGS=IgnoreUnknown=yes",
]


def one_input(data: bytes) -> None:
    """Read *data* as the agent reads what the launcher sent."""
    variables = _received(data)
    try:
        call = environment.check(variables)
        call.args.encode()
        args.parse_requested(call.args, _nothing(), _nothing())
    except errors.CNIError as error:
        if error.code != 4:
            raise AssertionError(f"code {error.code}") from error
        errors.error_document(error, "1.1.0")


def _received(data: bytes) -> dict[str, str]:
    """The environment after its way over the socket."""
    sent = {}
    for variable in data.decode(errors="surrogateescape").split("\0"):
        name, _, value = variable.partition("=")
        if name:
            sent[name] = value
    frame = encode_request(
        Request(program="isthmus", environment=sent, stdin=b"", started_ns=1, boot_id="b")
    )
    received = parse_body(parse_header(frame[:HEADER_SIZE]), frame[HEADER_SIZE:]).environment
    if received != sent:
        raise AssertionError(f"{sent} became {received}")
    return dict(received)


def _nothing() -> Section:
    return Section({})


if __name__ == "__main__":
    run(one_input, "args", SEEDS)
