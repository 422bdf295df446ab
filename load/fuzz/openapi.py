"""`python -m load.fuzz.openapi`: schemathesis on a live server's OpenAPI document.

Valid and invalid requests are drawn from `/openapi.json`; an answer must have a status and a body
that the document names, refuse what breaks it, and never be a 500. The checks that stay out:
`positive_data_acceptance`, because whether a tensor fits a model is not in the document, and
`unsupported_method`, which takes a 404 of an unknown model for a route.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from load.access import NoGateway
from load.fuzz.cluster import fill_in

CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
)
PATIENCE_S: Final = 10
LEAVE_ALONE: Final = r"/v2/repository/models/"  # a load that is valid is served


def command(
    url: str, token: str, examples: int, seed: int, config: Path, report: Path | None
) -> list[str]:
    """Return the call of schemathesis; config: a file that may hold settings of it."""
    program = str(Path(sys.executable).with_name("schemathesis"))
    made = [program, "--config-file", str(config), "run", f"{url}/openapi.json", "--url", url]
    made += ["--header", f"Authorization: Bearer {token}", "--checks", ",".join(CHECKS)]
    made += ["--phases", "coverage,fuzzing", "--max-examples", str(examples), "--seed", str(seed)]
    made += ["--request-timeout", str(PATIENCE_S), "--exclude-path-regex", LEAVE_ALONE]
    made += [
        "--continue-on-failure",
        "--suppress-health-check",
        "all",
        "--generation-database",
        "none",
    ]
    if report is not None:
        made += ["--report-ndjson-path", str(report)]
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m load.fuzz.openapi", description=__doc__)
    parser.add_argument("--rest", help="URL of the REST server (default: the cluster here)")
    parser.add_argument("--token", help="token with the scopes infer, metrics:read")
    parser.add_argument("--model", help="ask this model and its version 1 instead of any name")
    parser.add_argument("--examples", type=int, default=200, help="requests of each operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, help="write every request and answer there")
    options = parser.parse_args(arguments)
    try:
        fill_in(options, ("infer", "metrics:read"))
    except NoGateway as error:
        print(error, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "schemathesis.toml"
        config.write_text(_settings(options.model))
        asked = command(
            options.rest, options.token, options.examples, options.seed, config, options.report
        )
        return subprocess.run(asked, check=False).returncode


def _settings(model: str | None) -> str:
    if model is None:
        return ""
    return f'[parameters]\n"path.model" = {json.dumps(model)}\n"path.version" = "1"\n'


if __name__ == "__main__":
    sys.exit(main())
