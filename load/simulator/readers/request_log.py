"""The gateway's request log (`serve_apps.gateway.request_log`): JSON lines, one for each attempt.

Attempts of one request are told by its id, model and size at one gateway: a further attempt
follows one that failed, in the same file or the next. They are one request here, as long as the
whole of it took. A line with attempt 0 is a request that was sent nowhere. `work_ms`, of
computing only, is read where a log has it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from load.simulator.recording import OK, Problem, Recorded, Recording, objective_of, recording_of
from serve_apps.gateway.request_log import VERSION

VERSIONS: Final = (VERSION,)
INSISTED: Final = "tier_requested"
MOVING: Final = "egress"  # the part of a price that is for bytes, not for work
_NAME: Final = re.compile(r"requests-(?P<gateway>.+)-[^-]+$")
_LONGEST_S: Final = 600.0  # between attempts of one request

Key = tuple[str, str, str, int]


def read_request_logs(
    name: str, paths: Iterable[Path], *, begin: float = -math.inf, end: float = math.inf
) -> Recording:
    """Read request logs, of one or several gateways; begin, end: unix seconds of arrival."""
    requests: list[Recorded] = []
    problems: list[Problem] = []
    files: list[str] = []
    retries = 0
    failed: dict[Key, int] = {}
    for path in sorted(paths):
        files.append(str(path))
        gateway = _gateway(path)
        try:
            lines = path.open("rb")
        except FileNotFoundError:  # the gateway made room meanwhile
            problems.append(Problem(path.name, 0, "was removed while this was read"))
            continue
        with lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    found, key = _parse(line, gateway)
                except (ValueError, TypeError, KeyError) as error:
                    problems.append(Problem(path.name, number, _why(error)))
                    continue
                if not begin <= found.at < end:
                    continue
                before = failed.pop(key, None)
                if found.attempts > 1 and before is not None:
                    earlier = requests[before]
                    if found.at - earlier.at <= _LONGEST_S:
                        retries += 1
                        requests[before] = _joined(earlier, found)
                        if found.outcome != OK:
                            failed[key] = before
                        continue
                if found.outcome != OK:
                    failed[key] = len(requests)
                requests.append(found)
    return recording_of(name, requests, problems, files=files, retries=retries)


def _gateway(path: Path) -> str:
    found = _NAME.search(path.stem)
    return found["gateway"] if found else ""


def _joined(first: Recorded, last: Recorded) -> Recorded:
    """Return two attempts as one request: from the first arrival to the last answer."""
    taken_s = None
    if first.taken_s is not None and last.taken_s is not None:
        taken_s = max(last.at - first.at, first.taken_s) + last.taken_s
    return last._replace(
        at=first.at,
        slack_s=first.slack_s,
        taken_s=taken_s,
        usd=_sum(first.usd, last.usd),
        moved_usd=_sum(first.moved_usd, last.moved_usd),
    )


def _sum(one: float | None, two: float | None) -> float | None:
    return two if one is None else one if two is None else one + two


def _parse(line: bytes, gateway: str) -> tuple[Recorded, Key]:
    found = orjson.loads(line)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    if found.get("v") not in VERSIONS:
        raise ValueError(f"version {found.get('v')!r} of the log is not known")
    attempt = int(_number(found, "attempt") or 1)
    parts = found.get("parts")
    if parts is not None and not isinstance(parts, Mapping):
        raise ValueError("parts are no object")
    tier = _text(found, "tier")
    request = Recorded(
        at=_required(found, "at"),
        size_bytes=round(_number(found, "bytes") or 0.0),
        slack_s=_seconds(found, "slack_ms"),
        model=_text(found, "model"),
        objective=objective_of(_text(found, "objective") or "balanced"),
        origin_site=_text(found, "origin_site"),
        insisted=tier if found.get("reason") == INSISTED and tier else None,
        gateway=gateway,
        place=_text(found, "target"),
        tier=tier,
        site=_text(found, "site"),
        taken_s=_seconds(found, "taken_ms"),
        work_s=_seconds(found, "work_ms"),
        usd=_number(found, "usd"),
        moved_usd=_number(parts, MOVING) if parts else None,
        outcome=_text(found, "outcome") or OK,
        attempts=attempt,
    )
    return request, (gateway, _text(found, "id"), request.model, request.size_bytes)


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    return value


def _number(found: Mapping[str, Any], key: str) -> float | None:
    value = found.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} is no number")
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"{key} is {value}, not a number from 0 up")
    return float(value)


def _required(found: Mapping[str, Any], key: str) -> float:
    value = _number(found, key)
    if value is None:
        raise ValueError(f"no {key}")
    return value


def _seconds(found: Mapping[str, Any], key: str) -> float | None:
    value = _number(found, key)
    return None if value is None else value / 1e3


def _why(error: Exception) -> str:
    if isinstance(error, orjson.JSONDecodeError):
        return f"no JSON: {error.msg}"
    return str(error)
