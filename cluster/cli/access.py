"""`token` and `apikey`: credentials for callers."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cluster.cli.context import actor, invocation, say, say_json, table
from cluster.cli.life import Json

Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="What it may do; repeat for several. Default: infer."),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(token)
    keys = typer.Typer(help="Long-lived keys for callers that cannot renew a token.")
    keys.command("create")(create_key)
    keys.command("list")(list_keys)
    keys.command("revoke")(revoke_key)
    app.add_typer(keys, name="apikey", no_args_is_help=True)


def token(
    context: typer.Context,
    scope: Scopes = None,
    ttl: Annotated[float, typer.Option(help="Seconds it holds.")] = 3600.0,
    subject: Annotated[str | None, typer.Option(help="Who will use it; you by default.")] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Print Ray's own token instead.")] = False,
) -> None:
    """Print a token: send it as `Authorization: Bearer TOKEN`.

    Scopes: infer (ask models), models:write (load and unload), metrics:read (metrics,
    decisions, targets), admin (all of them).
    """
    from cluster.identity.keys import ensure_signing_key
    from cluster.identity.ray_token import ensure_ray_token
    from cluster.identity.tokens import issue

    home = invocation(context).home()
    if ray:
        say(ensure_ray_token(home).read_text("ascii").strip())
        return
    key = ensure_signing_key(home)
    say(issue(key, subject or actor(), scope or ["infer"], ttl, time.time(), kind="user"))


def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    scope: Scopes = None,
    ttl_days: Annotated[
        float | None, typer.Option(help="Days it holds; unlimited if unset.")
    ] = None,
) -> None:
    """Create a key and show it, once: send it as `X-API-Key: KEY`."""
    from cluster.identity.apikeys import ApiKeyStore

    ttl_s = None if ttl_days is None else ttl_days * 86_400
    store = ApiKeyStore(invocation(context).home().api_keys)
    say(store.create(name, scope or ["infer"], time.time(), ttl_s).text)


def list_keys(context: typer.Context, as_json: Json = False) -> None:
    """List keys; their text is not stored and cannot be shown again."""
    from dataclasses import asdict

    from cluster.identity.apikeys import ApiKeyStore

    records = ApiKeyStore(invocation(context).home().api_keys).list()
    if as_json:
        say_json(
            [
                {k: sorted(v) if isinstance(v, frozenset) else v for k, v in asdict(r).items()}
                for r in records
            ]
        )
        return
    table(
        ["id", "subject", "scopes", "expires", "revoked"],
        [
            [
                r.id,
                r.subject,
                " ".join(sorted(r.scopes)),
                _when(r.expires_at),
                _when(r.revoked_at, ""),
            ]
            for r in records
        ],
    )


def revoke_key(
    context: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID")]
) -> None:
    """Revoke a key; gateways refuse it within 30 seconds."""
    from cluster.identity.apikeys import ApiKeyStore

    ApiKeyStore(invocation(context).home().api_keys).revoke(key_id, time.time())
    say(f"revoked {key_id}")


def _when(at: float | None, unset: str = "never") -> str:
    return unset if at is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))
