"""The program's own doorstep: what is answered before anything else is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MAIN = "import sys; from agent.standalone import main; status = main(); {more}; sys.exit(status)"
CALL = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_IFNAME": "eth0",
    "CNI_NETNS": "/no/such/netns",
    "CNI_PATH": "/no/such/bin",
}


def run(
    more: str = "pass", *, stdout: int = subprocess.PIPE, shell: str = "", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """The program with *variables*, then *more* Python; *shell* redirects its descriptors."""
    argv = [sys.executable, "-c", MAIN.format(more=more)]
    if shell:
        argv = ["sh", "-c", f'exec "$@" {shell}', "sh", *argv]
    return subprocess.run(
        argv,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **variables},
        input=b"",
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        timeout=30,
    )


def test_version_needs_nothing_but_its_name() -> None:
    done = run(CNI_COMMAND="VERSION")

    assert (done.returncode, json.loads(done.stdout)["cniVersion"]) == (0, "1.1.0")


def test_without_a_command_it_says_what_it_is_to_people() -> None:
    done = run()

    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.splitlines()[1] == (
        b"CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
    )


@pytest.mark.parametrize(
    ("wrong", "msg"),
    [
        ({"CNI_COMMAND": "NOPE"}, "unknown CNI_COMMAND: NOPE"),
        (
            {"CNI_CONTAINERID": "", "CNI_IFNAME": ""},
            "required env variables [CNI_CONTAINERID,CNI_IFNAME] missing",
        ),
        ({"CNI_CONTAINERID": "no/way"}, "invalid characters in containerID"),
    ],
)
def test_an_environment_that_is_wrong_is_4(wrong: dict[str, str], msg: str) -> None:
    done = run(**CALL | wrong)

    document = json.loads(done.stdout)
    assert (done.returncode, document["code"], document["msg"]) == (1, 4, msg)


def test_an_answer_needs_none_of_the_heavy_modules() -> None:
    heavy = "('sqlite3', 'asyncio', 'dataplane.netlink', 'agent.single_call')"

    done = run(f"print([m for m in {heavy} if m in sys.modules])", CNI_COMMAND="VERSION")

    assert done.stdout.endswith(b"[]\n")


def test_a_reader_that_went_away_is_a_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(CNI_COMMAND="VERSION", stdout=writing)
    finally:
        os.close(writing)

    assert done.returncode == 1


def test_standard_output_that_was_closed_is_a_failure() -> None:
    done = run(CNI_COMMAND="VERSION", shell=">&-")

    assert done.returncode == 1


def test_bytes_that_are_no_text_do_not_stop_it() -> None:
    done = run(**CALL | {"CNI_CONTAINERID": os.fsdecode(b"\xff")}, LC_ALL="C")

    assert json.loads(done.stdout)["code"] == 4
