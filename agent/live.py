"""What of the configuration file is followed while the agent runs: how egress is translated."""

import logging
import os
from pathlib import Path

from agent.config import AgentConfig, load
from masquerade.settings import Settings
from net.settings import ConfigError

log = logging.getLogger(__name__)


class Live:
    """A file that cannot be used changes nothing, and is complained of; from any thread."""

    def __init__(self, config: AgentConfig, path: Path | None) -> None:
        self._path = path
        self._seen = self._look()
        self._masquerade = config.masquerade
        self.complaint = ""

    @property
    def masquerade(self) -> Settings | None:
        """As the file says now."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            self._read()
        return self._masquerade

    def _read(self) -> None:
        try:
            self._masquerade = load(self._path).masquerade
        except ConfigError as exc:
            self.complaint = f"the configuration changed and is not used: {exc}"
            log.error("configuration not used", extra={"error": str(exc)})
            return
        self.complaint = ""
        log.info("configuration read anew", extra={"path": str(self._path)})

    def _look(self) -> tuple[int, ...]:
        """What changes with the file, also where a link to it is set to another one."""
        if self._path is None:
            return ()
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
