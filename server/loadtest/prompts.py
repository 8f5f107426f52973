"""What is asked: synthetic text of about so many tokens, or prompts from a file.

Raises ValueError that names the way out, for files that hold no prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol

Messages = Sequence[Any]

#: Short, common words: in the large vocabularies of today each is one token with its space.
WORDS: Final = tuple(
    """able about above across after again against ago air all alone along also always among animal
    another answer any apple area around art ask autumn away back bad ball bank base bear beat bed
    before begin behind below best better between big bird black blue board boat body book both box
    boy bread break bring brother brown build business buy call came can car care carry case catch
    center chair change child city class clean clear close cloud cold color come common cook corner
    count country course cover cross cut dance dark day deep desk door down draw dream drive dry
    during each early earth east easy eat edge end enough even evening ever every eye face fact fall
    family far farm fast father feel few field fight fill find fine fire first fish five floor fly
    food foot force forest form four free friend from front full game garden gave girl give glass
    go gold good grass gray great green ground group grow half hand happy hard hat head hear heart
    heat heavy help here high hill hold home horse hot hour house idea island job keep key kind king
    lake land large last late laugh lead learn leave left letter life light line list little long
    look low machine main make map mark market matter meet milk mind minute money month moon morning
    mother mountain mouth move music name near never new night north note number ocean offer office
    often old open order paper park part pass past path people picture piece place plan plant play
    point poor power present price problem question quick quiet rain reach read ready real red rest
    rich ride right ring river road rock room round run salt same sand school sea season second see
    seven shape ship shoe shop short show side silver simple sing sister six size sky sleep slow
    small snow soft some song soon sound south space speak spring square stand star start state step
    stone stop store storm story street strong summer sun table tail take talk tall teach ten test
    thing think three time top total touch town trade train travel tree true turn two under until
    up use very voice wait walk wall want warm wash watch water way week west wheel white wide wife
    wild wind window winter woman wood word work world write year yellow yes young""".split()
)


class Prompts(Protocol):
    """Makes the messages of request number `index`; the same number gives the same messages."""

    def messages(self, index: int) -> Messages: ...

    def repeats(self, count: int) -> bool:
        """Do the first `count` requests hold a prompt twice?"""
        ...

    def as_json(self) -> dict[str, Any]:
        """What they are."""
        ...


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Random words, about `tokens` of them. Already the first words differ from request to request,
    so that no prefix cache answers; `same` gives them all the same text."""

    tokens: int
    seed: int
    same: bool = False

    def messages(self, index: int) -> Messages:
        chance = Random(f"{self.seed}/{0 if self.same else index}")
        return [{"role": "user", "content": " ".join(chance.choices(WORDS, k=self.tokens))}]

    def repeats(self, count: int) -> bool:
        return self.same and count > 1

    def as_json(self) -> dict[str, Any]:
        return {"source": "synthetic", "tokens_about": self.tokens, "same": self.same}


@dataclass(frozen=True, slots=True)
class Listed:
    """Prompts in their order, from the first again when they are used up."""

    prompts: tuple[Messages, ...]
    name: str = ""

    def messages(self, index: int) -> Messages:
        return self.prompts[index % len(self.prompts)]

    def repeats(self, count: int) -> bool:
        return count > len(self.prompts)

    def as_json(self) -> dict[str, Any]:
        return {"source": "file", "file": self.name, "count": len(self.prompts)}


def parse(text: str, name: str = "") -> Listed:
    """The prompts in the text of a file with that name.

    A line is a prompt as it is, or, if it begins with `{`, JSON with `prompt` or `messages`.
    """
    found = [
        _line(line.strip(), number)
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]
    if not found:
        raise ValueError("there is no prompt in it: write one on each line")
    return Listed(tuple(found), name)


def _line(line: str, number: int) -> Messages:
    if not line.startswith("{"):
        return _asked(line)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(
            f'line {number}: begins with {{ but is no JSON; write {{"prompt": "…"}}'
        ) from None
    if set(value) == {"prompt"} and isinstance(value["prompt"], str) and value["prompt"]:
        return _asked(value["prompt"])
    if set(value) == {"messages"} and isinstance(value["messages"], list) and value["messages"]:
        return tuple(value["messages"])
    raise ValueError(
        f"line {number}: holds {', '.join(sorted(value)) or 'nothing'}; write either "
        '{"prompt": "…"} or {"messages": [{"role": "user", "content": "…"}]}, nothing beside it'
    )


def _asked(text: str) -> Messages:
    return ({"role": "user", "content": text},)
