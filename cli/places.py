"""Where things are put on a host, and where what is put comes from."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent  # the source tree, or a frozen program's folder
CONF = TREE / "conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Directories as the installed host will see them; *root* comes before each when writing."""

    root: Path = Path("/")
    bin_dir: Path = Path("/opt/cni/bin")
    conf_dir: Path = Path("/etc/cni/net.d")
    program_dir: Path = Path("/opt/isthmus")
    command_dir: Path = Path("/usr/local/bin")
    config_dir: Path = Path("/etc/isthmus")
    state_dir: Path = Path("/var/lib/isthmus")
    unit_dir: Path = Path("/etc/systemd/system")

    def real(self, path: Path) -> Path:
        """*path* below the root."""
        return self.root / path.relative_to("/")

    @property
    def manifest(self) -> Path:
        return self.real(self.state_dir) / "manifest.json"

    def unknown_to_launcher(self) -> list[tuple[str, Path]]:
        """Paths other than those built into the launcher, and the variables that tell it."""
        usual = Places()
        wanted = []
        if self.state_dir != usual.state_dir:
            wanted.append(("ISTHMUS_SPOOL", self.state_dir / "spool"))
        if self.program_dir != usual.program_dir:
            wanted.append(("ISTHMUS_STANDALONE", self.program_dir / "isthmus"))
        return wanted

    @property
    def is_this_host(self) -> bool:
        return self.root.resolve() == Path("/")


def find_launcher() -> Path | None:
    """The launcher that was built: beside the frozen program or its folder, or in the tree."""
    built = [TREE / "build/launcher/isthmus-launcher"]
    if getattr(sys, "frozen", False):
        program = Path(sys.executable).resolve()
        built = [folder / "isthmus-launcher" for folder in program.parents[:2]]
    return next((path for path in built if os.access(path, os.X_OK)), None)


def find_standalone() -> Path | None:
    """The standalone program: the folder it is in, or the one file; None where it is not built."""
    if getattr(sys, "frozen", False):
        program = Path(sys.executable).resolve()
        in_folder = TREE.is_relative_to(program.parent)
        return program.parent if in_folder else program
    folder = TREE / "dist/isthmus"
    return folder if (folder / "isthmus").exists() else None


def has_systemd() -> bool:
    """systemd is what runs this host (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()
