"""Texts of prompts that have a length only."""

from __future__ import annotations

import random
from collections.abc import Hashable

from autoscaling.traffic import Request

_WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child"),
    *("world", "school", "state", "family", "group", "hand", "part", "place", "case", "week"),
    *("system", "work", "number", "night", "point", "home", "water", "room", "mother", "area"),
    *("money", "story", "fact", "month", "lot", "right", "study", "book", "eye", "job", "word"),
    *("issue", "side", "kind", "head", "house", "friend", "father"),
)
"""Common words, a token each for today's tokenizers and, up to 6 letters, for the sandbox's."""
_CORPUS_WORDS = 65_536
_OWN_WORDS = 12
"""Words at its beginning that no two prompts share, so that the prefix cache finds nothing in the rest."""


class Prompts:
    """Makes a text for each request: about as many words as the request has tokens."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"{seed} prompts")  # noqa: S311
        self._corpus = self._chance.choices(_WORDS, k=_CORPUS_WORDS)
        self._shared: dict[Hashable, str] = {}

    def text(self, request: Request) -> str:
        """The traffic's own text, or one of the length that it asks for, the shared part first."""
        if request.prompt is not None:
            return request.prompt
        own, shared = request.prompt_tokens, ""
        if request.prefix is not None:
            own -= request.prefix.tokens
            shared = self._beginning(request.prefix.key, request.prefix.tokens)
        words = self._chance.choices(_WORDS, k=min(own, _OWN_WORDS))
        rest = own - len(words)
        while rest > 0:
            # Pieces of the corpus, since drawing each word would be most of the client's work.
            start = self._chance.randrange(_CORPUS_WORDS)
            piece = self._corpus[start : start + rest]
            words += piece
            rest -= len(piece)
        return " ".join([shared, *words] if shared else words)

    def _beginning(self, key: Hashable, tokens: int) -> str:
        if key not in self._shared:
            chance = random.Random(str(key))  # noqa: S311
            self._shared[key] = " ".join(chance.choices(_WORDS, k=tokens))
        return self._shared[key]
