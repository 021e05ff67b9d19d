"""Traffic as data: when requests come, and how long their prompts and answers are.

One syntax for rehearsals and load tests, `kind:option=value,…`; see `parse`. Everything is drawn from a seed:
the same text and seed give the same requests.
"""

from __future__ import annotations

import csv
import math
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from autoscaling.arrivals import Arrivals, Burst, Constant, Day, Ramp, Steps
from autoscaling.engine import Prefix
from components.setting_types import seconds

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Request:
    """One request for an answer."""

    at: float
    """Intended start, seconds since the traffic began; 0 in a closed loop, which starts it when it can."""
    prompt_tokens: int
    output_tokens: int
    """What the answer has."""
    prefix: Prefix | None = None
    """The part of the prompt that other requests begin with too."""
    prompt: str | None = None
    """The text, where the traffic has one."""


# --- lengths ------------------------------------------------------------------------------------------------

CHAT_PROMPT_TOKENS = 1020
"""Median prompt of a chat, with the conversation so far: the conversations of the Azure LLM inference trace
2023 (19,366 requests of a service in production, published with Splitwise, ISCA 2024)."""
CHAT_OUTPUT_TOKENS = 129
"""Median answer in the same trace."""
# Standard deviations of the logarithms, such that the means are those of the trace too: 1155 and 211 tokens.
_PROMPT_SPREAD = 0.5
_OUTPUT_SPREAD = 0.99
_LONGEST = 8  # times the median; the longest answer of the trace has 1000 tokens


@dataclass(frozen=True)
class Lengths:
    """Log-normal lengths of prompts and answers, in tokens."""

    prompt: int = CHAT_PROMPT_TOKENS
    """Median of what is a request's own; at least 1 token, at most 8 times the median."""
    output: int = CHAT_OUTPUT_TOKENS
    """Median; the same bounds."""
    shared: int = 0
    """Length of a system prompt that stands before every prompt and comes on top of its own tokens."""

    def requests(self, arrivals: Iterator[float], chance: random.Random) -> Iterator[Request]:
        """A request for each arrival."""
        gauss, exp = chance.gauss, math.exp
        prompt, output, shared = self.prompt, self.output, self.shared
        longest_prompt, longest_output = _LONGEST * prompt, _LONGEST * output
        prefix = Prefix("system prompt", shared) if shared else None
        for at in arrivals:
            asked = int(prompt * exp(_PROMPT_SPREAD * gauss()) + 0.5)
            answered = int(output * exp(_OUTPUT_SPREAD * gauss()) + 0.5)
            yield Request(
                at,
                shared + min(max(asked, 1), longest_prompt),
                min(max(answered, 1), longest_output),
                prefix,
            )


# --- traffic ------------------------------------------------------------------------------------------------


class OpenLoop(ABC):
    """Requests that come when they come, however slow the answers are."""

    name: str
    """As it was written."""

    @property
    @abstractmethod
    def duration(self) -> float:
        """Seconds in which requests come."""

    @abstractmethod
    def requests(self, seed: int) -> Iterator[Request]:
        """Lazily, in the order of their intended starts."""


@dataclass(frozen=True)
class Drawn(OpenLoop):
    """An open loop of chance."""

    name: str
    arrivals: Arrivals
    lengths: Lengths = field(default_factory=Lengths)

    @property
    def duration(self) -> float:
        """See `OpenLoop`."""
        return self.arrivals.duration

    def requests(self, seed: int) -> Iterator[Request]:
        """See `OpenLoop`."""
        # Two sources of chance: other lengths leave the arrivals as they are.
        arrivals, lengths = random.Random(f"{seed} arrivals"), random.Random(f"{seed} lengths")  # noqa: S311
        return self.lengths.requests(self.arrivals.times(arrivals), lengths)


@dataclass(frozen=True)
class Recorded(OpenLoop):
    """An open loop as a CSV file has it."""

    name: str
    path: Path

    @cached_property
    def duration(self) -> float:
        """Time of the last request; reads the file, and raises ValueError for every mistake in it."""
        last = deque(_rows(self.path), maxlen=1)
        if not last:
            raise ValueError(f"{self.path} has no requests")
        return last[0].at

    def requests(self, seed: int) -> Iterator[Request]:
        """See `OpenLoop`; the seed changes nothing."""
        return _rows(self.path)


_COLUMNS = ("seconds", "prompt_tokens", "output_tokens")
_MOST_SECONDS = 366 * 86400
"""Of a recording; a time of Unix would have half a century of nothing rehearsed before it."""


def _rows(path: Path) -> Iterator[Request]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            yield from _read(path, csv.DictReader(file, skipinitialspace=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: no CSV file with commas, in UTF-8 ({error})") from None


def _read(path: Path, reader: csv.DictReader[str]) -> Iterator[Request]:
    found = reader.fieldnames or ()
    missing = [column for column in _COLUMNS if column not in found]
    if missing:
        raise ValueError(
            f"{path}, line 1: no column {', '.join(missing)} in {', '.join(found) or 'an empty file'}; "
            f"the columns are {', '.join(_COLUMNS)}, with commas between them"
        )
    before = 0.0
    for row in reader:
        at = _cell(path, reader.line_num, row, "seconds", _elapsed)
        if at < before:
            raise ValueError(
                f"{path}, line {reader.line_num}, seconds = {at:g}: must not be before {before:g}, "
                "the time of the line above"
            )
        before = at
        prompt, output = (_cell(path, reader.line_num, row, name, _count) for name in _COLUMNS[1:])
        yield Request(at, prompt, output)


def _cell(
    path: Path, line: int, row: Mapping[str, str | None], column: str, read: Callable[[str], _Value]
) -> _Value:
    text = (row[column] or "").strip()
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{path}, line {line}, {column} = {text}: {error}") from None


@dataclass(frozen=True)
class Prompt:
    """One prompt of the article's pool."""

    text: str
    tokens: int
    """With the chat template; counted as the sandbox's replicas count them."""
    answer: int
    """Median tokens of an answer without limit."""
    weight: int


ARTICLE_MAX_TOKENS = 768
ARTICLE_TEMPERATURE = 0.7
ARTICLE_POOL = (
    Prompt("Explain what a neural network is.", 23, 300, 2),
    Prompt("Summarize how photosynthesis works.", 22, 300, 2),
    Prompt("What is container orchestration good for?", 24, 300, 2),
    Prompt(
        "Explain how a database executes a query, from parsing to the result, and where an index helps.",
        38,
        650,
        4,
    ),
    Prompt(
        "Compare batch processing and stream processing, and describe a case for each of them.", 34, 650, 4
    ),
    Prompt(
        "Write a very detailed technical article about how a language model answers a request on a GPU: "
        "tokenization, embeddings, attention, key-value cache, continuous batching, quantization, and what "
        "limits latency and throughput. Discuss each at length and give examples with numbers.",
        82,
        1500,
        6,
    ),
)
"""The pool of the article's stress test: 3 short prompts, 2 medium ones, 1 long one, with its weights.

Texts and lengths of answers are assumed: such prompts bring answers of some hundred tokens, and the long one
always runs into the limit. They are the same for all workers, so the prefix cache holds all of them.
"""
_ANSWER_SPREAD = 0.4  # of the logarithm of an answer's length at the article's temperature; assumed


@dataclass(frozen=True)
class ClosedLoop:
    """The article's stress test: workers that each send their next request when the last one is answered."""

    name: str
    workers: int = 500
    requests_per_worker: int = 25

    def requests(self, seed: int, worker: int) -> Iterator[Request]:
        """The requests of one worker (0 to `workers` - 1), in order."""
        chance = random.Random(f"{seed} worker {worker}")  # noqa: S311
        weights = [prompt.weight for prompt in ARTICLE_POOL]
        for prompt in chance.choices(ARTICLE_POOL, weights, k=self.requests_per_worker):
            answer = round(prompt.answer * math.exp(chance.gauss(0, _ANSWER_SPREAD)))
            yield Request(
                0.0,
                prompt.tokens,
                min(answer, ARTICLE_MAX_TOKENS),
                Prefix(prompt.text, prompt.tokens),
                prompt.text,
            )


Traffic = OpenLoop | ClosedLoop


# --- syntax -------------------------------------------------------------------------------------------------


_MOST_PER_SECOND = 100_000.0
"""More than any client sends or fleet takes; with far higher ones time would stand still, as a float."""


def _number(text: str, least: float, above: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least or (above and value == least):
        raise ValueError(f"must be a number {'above' if above else 'of at least'} {least:g}")
    return value


def _elapsed(text: str) -> float:
    value = _number(text, 0, above=False)
    if value > _MOST_SECONDS:
        raise ValueError("must be since the traffic began, no Unix time and no more than a year")
    return value


def _rate(text: str) -> float:
    return _bounded(_number(text, 0, above=True))


def _low_rate(text: str) -> float:
    return _bounded(_number(text, 0, above=False))


def _bounded(rate: float) -> float:
    if rate > _MOST_PER_SECOND:
        raise ValueError(f"must be at most {_MOST_PER_SECOND:.0f} a second")
    return rate


def _whole(text: str, least: int) -> int:
    value = int(text) if text.isascii() and text.isdigit() else -1
    if value < least:
        raise ValueError(f"must be a whole number of at least {least}")
    return value


def _count(text: str) -> int:
    return _whole(text, 1)


def _tokens(text: str) -> int:
    return _whole(text, 0)


def _rates(text: str) -> tuple[float, ...]:
    return tuple(_low_rate(part) for part in text.split("/"))


def _duration(text: str) -> float:
    value = seconds(text)
    if not value:
        raise ValueError("must be longer than 0")
    return value


@dataclass(frozen=True)
class _Kind:
    """One word of the syntax: its options in order, and what becomes of their values."""

    example: str
    options: Mapping[str, Callable[[str], Any]]
    make: Callable[[str, dict[str, Any]], Traffic]
    optional: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)


def _drawn(make: Callable[..., Arrivals]) -> Callable[[str, dict[str, Any]], Traffic]:
    def traffic(name: str, values: dict[str, Any]) -> Traffic:
        lengths = Lengths(**{key: values.pop(key) for key in _LENGTHS if key in values})
        return Drawn(name, make(*values.values()), lengths)

    return traffic


_LENGTHS: Mapping[str, Callable[[str], Any]] = {"prompt": _count, "output": _count, "shared": _tokens}
_KINDS: Mapping[str, _Kind] = {
    "article": _Kind(
        "article:workers=500,requests=25",
        {},
        lambda name, values: ClosedLoop(
            name,
            values.get("workers", ClosedLoop.workers),
            values.get("requests", ClosedLoop.requests_per_worker),
        ),
        {"workers": _count, "requests": _count},
    ),
    "poisson": _Kind(
        "poisson:rate=10,for=1h",
        {"rate": _rate, "for": _duration},
        _drawn(lambda rate, duration: Ramp(rate, rate, duration)),
        _LENGTHS,
    ),
    "constant": _Kind(
        "constant:rate=5,for=10m", {"rate": _rate, "for": _duration}, _drawn(Constant), _LENGTHS
    ),
    "ramp": _Kind(
        "ramp:from=1,to=20,for=30m",
        {"from": _low_rate, "to": _low_rate, "for": _duration},
        _drawn(Ramp),
        _LENGTHS,
    ),
    "steps": _Kind(
        "steps:rates=1/5/10/5,each=10m", {"rates": _rates, "each": _duration}, _drawn(Steps), _LENGTHS
    ),
    "burst": _Kind(
        "burst:base=2,peak=30,every=15m,length=1m,for=2h",
        {"base": _low_rate, "peak": _rate, "every": _duration, "length": _duration, "for": _duration},
        _drawn(Burst),
        _LENGTHS,
    ),
    "day": _Kind(
        "day:trough=1,peak=10,for=24h",
        {"trough": _low_rate, "peak": _rate, "for": _duration},
        _drawn(Day),
        _LENGTHS,
    ),
}
_CSV = "csv"


def parse(text: str) -> Traffic:
    """The traffic of a text such as `article`, `poisson:rate=10,for=1h` or `csv:path`.

    Rates are requests per second; `prompt=` and `output=` are median tokens (default: a chat), `shared=` the
    length of a system prompt that all prompts begin with (default 0). A CSV file has the columns seconds,
    prompt_tokens and output_tokens. Raises ValueError that names the word, its value and what is allowed,
    and for a file line and column.
    """
    word, _, rest = text.strip().partition(":")
    if word == _CSV:
        recorded = Recorded(text, Path(rest).expanduser())
        try:
            recorded.duration  # noqa: B018  reads the whole file: a mistake shows now, not after an hour
        except OSError as error:
            raise ValueError(
                f"traffic {text!r}: {error.strerror}; a CSV file with the columns {', '.join(_COLUMNS)} is "
                "needed"
            ) from None
        return recorded
    if word not in _KINDS:
        raise ValueError(f"traffic {text!r}: one of {', '.join(_KINDS)}, {_CSV}; such as {_examples()}")
    kind = _KINDS[word]
    known = {**kind.options, **kind.optional}
    values: dict[str, Any] = {}
    for part in filter(None, map(str.strip, rest.split(","))):
        name, _, value = part.partition("=")
        if name not in known:
            raise ValueError(
                f"traffic {text!r}: {name} is none of {', '.join(known)}; such as {kind.example}"
            )
        if name in values:
            raise ValueError(f"traffic {text!r}: {name} is there twice")
        try:
            values[name] = known[name](value)
        except ValueError as error:
            raise ValueError(f"traffic {text!r}: {name}={value} {error}; such as {kind.example}") from None
    missing = [name for name in kind.options if name not in values]
    if missing:
        raise ValueError(f"traffic {text!r}: {', '.join(missing)} is missing; such as {kind.example}")
    try:
        return kind.make(text, {name: values[name] for name in known if name in values})
    except ValueError as error:
        raise ValueError(f"traffic {text!r}: {error}") from None


def _examples() -> str:
    return ", ".join([*(kind.example for kind in _KINDS.values()), f"{_CSV}:requests.csv"])
