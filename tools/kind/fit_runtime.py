#!/usr/bin/python3 -IS
"""An OCI runtime that asks of the kernel only what this machine may give; then it is runc.

Where CAP_SYS_RESOURCE is missing nobody can grant it, lower oom_score_adj or raise a hard limit,
and `docker run --privileged`, which asks for all three, fails.  What docker writes for runc
(config.json for create and run, the file of --process for exec) is mended before runc reads it.
Debian 12's docker is also too old to count the newest capabilities among the privileges.
This file is executed by docker: it uses nothing but the standard library.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

RUNC = "/usr/sbin/runc"
LATER = ("CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE")  # Linux 5.8 and 5.9
NUMBERS = {"CAP_SYS_RESOURCE": 24, "CAP_PERFMON": 38, "CAP_BPF": 39, "CAP_CHECKPOINT_RESTORE": 40}


def fit(process: dict[str, Any], missing: frozenset[str], limits: dict[str, int]) -> dict[str, Any]:
    """Return *process* of the OCI runtime specification as this machine can run it.

    *missing* are capabilities nobody can have here, *limits* the hard limits by name (-1: none).
    """
    fitted = dict(process)
    if "capabilities" in process:
        fitted["capabilities"] = {
            kind: _fit_capabilities(names or [], missing)
            for kind, names in process["capabilities"].items()
        }
    if "CAP_SYS_RESOURCE" not in missing:
        return fitted
    if "oomScoreAdj" in process:
        fitted["oomScoreAdj"] = max(0, process["oomScoreAdj"] or 0)
    if "rlimits" in process:
        fitted["rlimits"] = [_fit_limit(limit, limits) for limit in process["rlimits"]]
    return fitted


def _fit_capabilities(names: list[str], missing: frozenset[str]) -> list[str]:
    # Only the privileged may load modules: whoever may is to have all there is.
    wanted = [*names, *LATER] if "CAP_SYS_MODULE" in names else names
    return [name for name in dict.fromkeys(wanted) if name not in missing]


def _fit_limit(limit: dict[str, Any], limits: dict[str, int]) -> dict[str, Any]:
    highest = limits.get(limit["type"], -1)
    if highest == -1:
        return limit
    return {**limit, "hard": min(limit["hard"], highest), "soft": min(limit["soft"], highest)}


def missing_capabilities(status: str) -> frozenset[str]:
    """Return which of those we know are not in CapBnd of the text of /proc/self/status."""
    held = next(int(line.split()[1], 16) for line in status.splitlines() if "CapBnd:" in line)
    return frozenset(name for name, number in NUMBERS.items() if not held >> number & 1)


def file_to_mend(arguments: list[str]) -> tuple[Path, str] | None:
    """Return the file that runc's *arguments* lead to, and the key in it ("" for all of it)."""
    if "create" in arguments or "run" in arguments:
        bundle = _option(arguments, "--bundle", "-b") or "."
        return Path(bundle, "config.json"), "process"
    process = _option(arguments, "--process", "-p")
    return (Path(process), "") if "exec" in arguments and process else None


def _option(arguments: list[str], *names: str) -> str | None:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else following
    return None


def _mend(path: Path, key: str) -> None:
    document = json.loads(path.read_text())
    limits = {
        name: resource.getrlimit(getattr(resource, name))[1]
        for name in dir(resource)
        if name.startswith("RLIMIT_")
    }
    missing = missing_capabilities(Path("/proc/self/status").read_text())
    fitted = fit(document[key] if key else document, missing, limits)
    path.write_text(json.dumps({**document, key: fitted} if key else fitted))


def main() -> None:
    if (found := file_to_mend(sys.argv[1:])) is not None:
        _mend(*found)
    os.execv(RUNC, (RUNC, *sys.argv[1:]))


if __name__ == "__main__":
    main()
