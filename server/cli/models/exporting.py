"""`roundhouse models export`: the registry as one file."""

from __future__ import annotations

from pathlib import Path

import click

from server.cli.models.shelf import overlay_options, shelf
from server.registry.export import FORMATS


@click.command(
    epilog="""\b
Examples:
  roundhouse models export --no-overlay --out models_registry.json
  roundhouse models export --format md --provider openai
  roundhouse models export --format yaml | less

The same registry gives the same bytes: there is no time stamp in them."""
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS), case_sensitive=False),
    default="json",
    help="Default: json.",
)
@click.option("--out", metavar="FILE", help="Default: the standard output.")
@click.option("--provider", metavar="NAME", help="Of this provider alone.")
@overlay_options
def export(
    form: str, out: str | None, provider: str | None, overlay: bool, config: str | None
) -> None:
    """Write every card of the registry as JSON, YAML or tables."""
    if out is not None and not out.strip():
        raise click.BadParameter("say a file, or - for the standard output.", param_hint="--out")
    known = shelf(overlay, config)
    cards = dict(known.catalog)
    if provider is not None:
        from server.cli.models.listing import of_provider

        cards = {card.model_id: card for card in of_provider(known, provider)}
    text = FORMATS[form](cards, known.all_overlaid(cards.values()))
    if out is None or out == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written ({error.strerror}).") from None
    click.echo(f"Wrote {len(cards)} models to {out}.", err=True)
