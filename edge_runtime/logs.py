"""Logs as one JSON object a line, which journald, Loki and people with `jq` all read."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

PACKAGES: Final = ("edge_runtime", "cluster", "uvicorn.error", "grpc")


class JsonLines(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, error."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)  # ASCII: file names may hold what is no text, or a line separator


def log_to_stdout(level: str = "INFO") -> None:
    """Send what this process logs to standard output, unbuffered; of libraries, warnings only.

    systemd's journal adds the unit and keeps order; nothing is written to disk from here, so a
    root file system that is read-only or full is no concern of a log line.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel("WARNING")
    logging.captureWarnings(True)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level)
