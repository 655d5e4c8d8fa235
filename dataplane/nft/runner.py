"""Whole tables by the nft program; what changes often goes by `dataplane.nft.elements`."""

import subprocess
from collections.abc import Sequence

from dataplane.errors import NftError, NftUnavailable


class NftRunner:
    """Run `nft -f -`: one script is one kernel transaction.

    nft works in the network namespace of the calling thread, as every child does.
    """

    def __init__(self, argv: Sequence[str] = ("nft",), *, timeout: float = 30.0) -> None:
        self._argv = tuple(argv)
        self._timeout = timeout

    def load(self, script: str, *, check: bool = False) -> None:
        """Apply *script*; with *check* only ask whether the kernel would take it.

        Raises NftUnavailable when the program is missing or hangs, NftError when it refuses.
        """
        argv = [*self._argv, *(["--check"] if check else []), "-f", "-"]
        try:
            done = subprocess.run(
                argv,
                input=script,
                text=True,
                capture_output=True,
                timeout=self._timeout,
                check=False,
            )
        except FileNotFoundError as exc:
            raise NftUnavailable(
                f"the program {argv[0]} is not there: install the package nftables (1.0 or newer);"
                " masquerade, port mappings and macspoofchk need it"
            ) from exc
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise NftUnavailable(f"cannot run {argv[0]}: {exc}") from exc
        if done.returncode:
            complaint = done.stderr.strip().partition("\n")[0]
            raise NftError(complaint or f"{argv[0]} ended with {done.returncode}", script)
