"""`roundhouse health`."""

from __future__ import annotations

import click

from server.cli.options import base_url_option


@click.command(
    epilog="""\b
Examples:
  roundhouse health                does the server answer?
  roundhouse health --ready        does it take new requests?

For the health checks of containers and supervisors: needs no key, and exits with 0 or 1."""
)
@click.option("--ready", is_flag=True, help="Also whether it takes new requests.")
@base_url_option
def health(ready: bool, base_url: str | None) -> None:
    """Ask a running server whether it is well."""
    from server.cli.client import anybody

    with anybody(base_url) as client:
        client.get("/ready" if ready else "/health")
        click.echo(f"The server at {client.url} is {'ready' if ready else 'well'}.")
