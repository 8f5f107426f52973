"""From the accounts of a config to the targets that send with them: one for each key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.config import cards
from server.config.providers_table import Account, account
from server.config.resolve import ResolvedTarget
from server.config.schema import Config
from server.dialects.account import Scrubber
from server.dialects.table import dialect_of
from server.protocol.parameters import Fill
from server.registry.catalog import Catalog
from server.routing.chain import Seats
from server.targets import ProviderTarget
from server.transport import AttemptTimeouts

#: Tokens of an answer of Anthropic's, where neither client nor card says: what each of its models
#: can. An answer that is cut off says so.
_LONGEST: Final = 4096
#: Those that refuse messages with members they do not know.
STRICT: Final = frozenset({"openai", "azure", "groq"})


@dataclass(frozen=True, slots=True)
class Keyed:
    """A target with one key. `credential`: the provider, and what stands for the secret; None: it
    needs no key. `suffix`: tells it from the same target with another key; empty for an only one.
    """

    target: ProviderTarget
    credential: tuple[str, str] | None
    suffix: str


class Accounts:
    """Those of one config."""

    def __init__(self, config: Config, catalog: Catalog, folder: Path) -> None:
        self._catalog = catalog
        self._accounts = {
            name: account(name, provider, folder) for name, provider in config.providers.items()
        }
        self._scrubbers = {
            name: Scrubber(
                found.base_url,
                (found.headers, *(credential.headers for credential in found.credentials)),
                found.proxy,
            )
            for name, found in self._accounts.items()
        }

    def seats(self, provider: str) -> Seats | None:
        """The account's own limit, over all its models; None: it has none."""
        found = self._accounts[provider]
        if found.max_in_flight is None:
            return None
        return Seats(provider, found.max_in_flight, found.max_waiting)

    def keys(self) -> dict[tuple[str, int], str | None]:
        """Every account's keys, each by the provider's name and its number from 1 on, with what
        stands for the secret."""
        return {
            (name, number): credential.digest
            for name, found in self._accounts.items()
            for number, credential in enumerate(found.credentials, 1)
        }

    def like(self, provider: str) -> str:
        """The provider known by name that it is an account of; else its own name."""
        return self._accounts[provider].like

    def lacks(self, provider: str) -> frozenset[str]:
        """Abilities that nothing behind its dialect has."""
        found = self._accounts[provider]
        dialect = dialect_of(found.dialect, found.settings)
        return frozenset() if dialect is None else dialect.lacks

    def targets(
        self,
        target: ResolvedTarget,
        times: AttemptTimeouts,
        *,
        fill: Fill | None,
        drop: frozenset[str],
        label: str = "",
    ) -> Iterator[Keyed]:
        """The target at its provider, once for each of the account's keys. The first of several
        keeps the plain name, so that an account that gets a second one keeps its memory."""
        assert target.provider is not None
        assert target.model is not None
        found = self._accounts[target.provider]
        settings = self._settings(found, target.model)
        scrubber = self._scrubbers[target.provider]
        for number, credential in enumerate(found.credentials, 1):
            digest = credential.digest
            acting = ProviderTarget(
                target.provider,
                target.model,
                found.base_url,
                {**found.headers, **credential.headers},
                times,
                retry_ambiguous=found.retry_ambiguous,
                label=label,
                proxy=found.proxy,
                ca=found.ca,
                fill=fill,
                drop=drop,
                dialect=dialect_of(found.dialect, settings),
                settings=settings,
                surfaces=found.surfaces,
                strict=found.like in STRICT,
                key=number,
                scrubber=scrubber,
            )
            yield Keyed(
                acting,
                None if digest is None else (target.provider, digest),
                "" if digest is None or number == 1 else f"#{digest[:12]}",
            )

    def _settings(self, found: Account, model: str) -> dict[str, object]:
        """Anthropic wants a length of every answer: the model's longest, where nobody says."""
        settings = dict(found.settings)
        if found.dialect == "anthropic" and "max_tokens" not in settings:
            card = cards.at_provider(self._catalog, found.like, model)
            longest = None if card is None else card.specs.max_output
            settings["max_tokens"] = longest or _LONGEST
        return settings
