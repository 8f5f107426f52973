"""`roundhouse models sync`: overlays from the providers' own lists of models."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli.models.card import text_of
from server.cli.models.values import FiniteRange
from server.cli.options import json_option
from server.files import write_whole
from server.registry.cards import AccessMethod, Source, Status
from server.registry.catalog import CardError, Catalog, builtin
from server.registry.overlay import FOLDER, Difference, Overlay, matches, read, with_overlay

if TYPE_CHECKING:
    from server.config.load import Loaded


@dataclass(frozen=True, slots=True)
class Found:
    """What a provider's list says, against the catalog that Roundhouse comes with. `known`: how
    many of its models have cards of other providers."""

    overlay: Overlay
    path: Path
    listed: int
    new: tuple[str, ...]
    gone: tuple[str, ...]
    differences: tuple[Difference, ...]
    known: int = 0


@click.command(
    epilog="""\b
Examples:
  roundhouse models sync --dry-run                     what would change
  roundhouse models sync openai mistral
  roundhouse models sync --accept gpt-4o-mini          all differences of a model
  roundhouse models sync --accept cost.input           this fact, wherever it differs
  roundhouse models sync --accept gpt-4o-mini:cost.input

What a list says is kept in HOME/catalog/PROVIDER.json. It adds models and fills what the
registry does not know; what was checked stays until you accept a difference. To go back,
remove the file."""
)
@click.argument("providers", nargs=-1, metavar="[PROVIDER]...")
@click.option(
    "--config", metavar="FILE", help="Default: ROUNDHOUSE_CONFIG, else ./roundhouse.yaml."
)
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@click.option(
    "--accept",
    multiple=True,
    metavar="FACT_OR_MODEL",
    help="Let the list's value count: of a MODEL, a FACT, or MODEL:FACT. Repeatable.",
)
@click.option(
    "--timeout",
    type=FiniteRange(min=0, min_open=True, max=3600),
    default=30.0,
    metavar="SECONDS",
    help="Wait so long for each provider [30].",
)
@json_option
def sync(
    providers: Sequence[str],
    config: str | None,
    dry_run: bool,
    accept: Sequence[str],
    timeout: float,
    as_json: bool,
) -> None:
    """Ask the providers of the config for their lists of models.

    Prints the models that are new, those that are gone, and what differs from the registry.
    """
    from server.cli.models import ask
    from server.cli.models.configured import read_config

    loaded, keyless = read_config(config)
    if loaded is None:
        raise click.ClickException(
            "There is no config here, so no provider. Set a provider's key, such as "
            "OPENAI_API_KEY, write `version: 1` and `providers: {openai: {}}` into "
            "roundhouse.yaml, or name a config: --config FILE."
        )
    names = _chosen(providers, loaded)
    found: list[Found] = []
    errors: dict[str, str] = {}
    unused = set(accept)
    lists: dict[str, tuple[str, list[Any]]] = {}
    for name in names:
        if name in keyless:
            errors[name] = keyless[name]
            continue
        place = ask.account_of(name, loaded.config.providers[name], loaded.folder)
        try:
            entries = ask.ask(place, timeout)
        except ask.NoAnswer as error:
            errors[name] = str(error)
            continue
        # What several accounts of one provider list is one list: they may have models of their own.
        lists.setdefault(place.like, (place.url, []))[1].extend(entries)
    for name, (url, entries) in lists.items():
        source = Source(f"{name}: its own list of models", url, f"{date.today()}")  # noqa: DTZ011
        one = compare(builtin(), entries, source, name, loaded.home / FOLDER, accept, unused)
        if not dry_run:
            try:
                write(one)
            except OSError as error:
                errors[name] = (
                    f"has an overlay that cannot be written: {one.path} ({error.strerror})."
                )
                continue
        found.append(one)
    for word in sorted(unused):
        errors[f"--accept {word}"] = "names no difference that was found."
    _tell(found, errors, dry_run, as_json)
    if errors:
        raise click.exceptions.Exit(1)


# --- the config -------------------------------------------------------------------------------


def _chosen(providers: Sequence[str], loaded: Loaded) -> list[str]:
    known = list(loaded.config.providers)
    if not known:
        raise click.ClickException(
            f"{loaded.path} has no providers. Add some: `providers: {{openai: {{}}}}`."
        )
    for name in providers:
        if name not in known:
            raise click.BadParameter(
                f"{name!r} is not under `providers` in {loaded.path}. It has {', '.join(known)}.",
                param_hint="PROVIDER",
            )
    return list(dict.fromkeys(providers)) or known


# --- comparing --------------------------------------------------------------------------------


def compare(
    catalog: Catalog,
    entries: Iterable[Any],
    source: Source,
    provider: str,
    folder: Path,
    accept: Iterable[str] = (),
    unused: set[str] | None = None,
) -> Found:
    """A list against the catalog. What was accepted earlier, in the overlay of `folder`, stays
    accepted while both values are the same. Words of `accept` that named something leave
    `unused`."""
    from server.cli.models import listed

    path = folder / f"{provider}.json"
    before = _before(path)
    overlay = Overlay(provider, source, listed.cards(entries, provider))
    cards = overlay.cards()
    _, differences = with_overlay(catalog, cards, before.accepted if before else ())
    told: list[Difference] = []
    for one in differences:
        words = [word for word in accept if _names(word, one, catalog)]
        if unused is not None:
            unused.difference_update(words)
        told.append(replace(one, accepted=True) if words else one)
    overlay = replace(overlay, accepted=[one.told for one in told if one.accepted])
    same = matches(catalog, cards)
    elsewhere = sum(at is not None and catalog[at].provider != provider for at in same.values())
    return Found(
        overlay,
        path,
        len(cards),
        tuple(model_id for model_id, at in same.items() if at is None),
        tuple(_gone(catalog, set(same) | {at for at in same.values() if at}, provider, before)),
        tuple(told),
        elsewhere,
    )


def _before(path: Path) -> Overlay | None:
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except (CardError, OSError):
        click.echo(f"{path} could not be read; what it had accepted is lost.", err=True)
        return None


def _gone(
    catalog: Catalog, listed: set[str], provider: str, before: Overlay | None
) -> Iterator[str]:
    for card in catalog.values():
        answers = card.access_method is not AccessMethod.LOCAL and card.status is not Status.RETIRED
        if card.provider == provider and answers and card.model_id not in listed:
            yield card.model_id
    for model in before.models if before else ():
        if model["model_id"] not in listed and catalog.find(model["model_id"]) is None:
            yield model["model_id"]


def _names(word: str, one: Difference, catalog: Catalog) -> bool:
    """Does a word of `--accept` name this difference?"""
    model, colon, fact = word.rpartition(":")
    if colon and fact == one.fact and _is(model, one, catalog):
        return True
    return word in (one.fact, one.fact.partition(".")[0]) or _is(word, one, catalog)


def _is(name: str, one: Difference, catalog: Catalog) -> bool:
    card = catalog.find(name)
    return name == one.model_id or (card is not None and card.model_id == one.model_id)


def write(found: Found) -> None:
    """The overlay's file, whole or not at all. Raises OSError."""
    home = found.path.parent.parent
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    found.path.parent.mkdir(exist_ok=True)
    write_whole(found.path, found.overlay.text())


# --- telling ----------------------------------------------------------------------------------


def _tell(found: Iterable[Found], errors: dict[str, str], dry_run: bool, as_json: bool) -> None:
    if as_json:
        done = {one.overlay.provider: _as_dict(one, dry_run) for one in found}
        text = json.dumps({"providers": done, "errors": errors}, indent=2, ensure_ascii=False)
        click.echo(text)
        return
    for one in found:
        _report(one, dry_run)
    for name, sentence in errors.items():
        click.echo(f"Error: {name} {sentence}", err=True)


def _as_dict(found: Found, dry_run: bool) -> dict[str, Any]:
    import msgspec

    return {
        "url": found.overlay.source.url,
        "listed": found.listed,
        "new": list(found.new),
        "gone": list(found.gone),
        "differences": [msgspec.to_builtins(one) for one in found.differences],
        "written": None if dry_run else str(found.path),
    }


def _report(found: Found, dry_run: bool) -> None:
    from server.cli.show import show

    name = found.overlay.provider
    click.echo(f"{name}: {found.listed} models at {found.overlay.source.url}")
    for title, ids in (("new", found.new), ("gone", found.gone)):
        if ids:
            text = f"{title}, {len(ids)}: {', '.join(ids)}"
            click.echo(
                textwrap.fill(
                    text,
                    98,
                    initial_indent="  ",
                    subsequent_indent="    ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
    if found.known:
        click.echo(f"  known by another provider's card, {found.known}")
    if found.differences:
        click.echo(f"  differs, {len(found.differences)}:")
        rows = [
            (
                one.model_id,
                one.fact,
                text_of(one.checked),
                text_of(one.listed),
                "listed, accepted" if one.accepted else "checked",
            )
            for one in found.differences
        ]
        show(("MODEL", "FACT", "CHECKED", "LISTED", "COUNTS"), rows, empty="")
    elif not found.new and not found.gone:
        click.echo("  nothing new, and nothing differs")
    click.echo(f"  {'would write' if dry_run else 'wrote'} {found.path}")
