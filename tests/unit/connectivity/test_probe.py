"""The self-test's server and client, over loopback."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from connectivity.model import Outcome, Path, Target, Trial
from connectivity.probe import probe, serve


def free_port() -> int:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return int(probing.getsockname()[1])


def target(address: str, port: int, *trials: Trial) -> Target:
    return Target(
        path=Path.POD_SAME_NODE, address=address, port=port, node="n2", trials=trials or (*Trial,)
    )


async def with_server(port: int, act: Callable[[], Awaitable[None]]) -> None:
    serving = asyncio.ensure_future(serve(port))
    while True:  # until it listens
        await asyncio.sleep(0)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            if serving.done():
                serving.result()
            continue
        writer.close()
        break
    try:
        await act()
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def outcomes_of(*targets: Target, port: int) -> list[Outcome]:
    found: list[Outcome] = []
    asyncio.run(with_server(port, lambda: probe("n1", targets, found.append)))
    return found


def test_everything_goes_well_with_a_server_next_door_in_both_families() -> None:
    port = free_port()

    found = outcomes_of(target("127.0.0.1", port), target("::1", port), port=port)

    assert len(found) == 2 * len(Trial)
    # Loopback's MTU may be larger than any UDP datagram.
    assert {each.trial for each in found if each.failure} <= {Trial.WHOLE_MTU}


def test_nobody_there_is_a_failure_of_each_trial_that_connects() -> None:
    port, other = free_port(), free_port()

    found = outcomes_of(target("127.0.0.1", other, Trial.TCP, Trial.MANY), port=port)

    assert [each.trial for each in found] == [Trial.TCP, Trial.MANY]
    assert all("refused" in each.failure.lower() for each in found)


def test_a_server_that_sees_another_address_is_found_out() -> None:
    port = free_port()

    async def lie(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"192.0.2.7\n")
        await writer.drain()
        writer.close()

    found: list[Outcome] = []

    async def act() -> None:
        liar = await asyncio.start_server(lie, "127.0.0.1", port)
        async with liar:
            await probe("n1", [target("127.0.0.1", port, Trial.SOURCE)], found.append)

    asyncio.run(act())

    assert found[0].failure == "we are 127.0.0.1, and are seen as 192.0.2.7"
