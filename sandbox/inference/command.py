"""What an app's spec makes vLLM do: its command, read as a shell and vLLM's argument parser read it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sandbox.interfaces import JsonObject, JsonValue

DEFAULT_PORT = 8000
"""vLLM's own default; AI Deploy's default port is 8080."""

_SHELLS = ("sh", "bash", "/bin/sh", "/bin/bash")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_OPERATORS = set("();<>|&")
_FLAG = re.compile(r"--?[A-Za-z]")


class CommandError(ValueError):
    """The container's process ends at once; the text is what it prints."""


@dataclass(frozen=True)
class ServerArguments:
    """The arguments of a vLLM server that its stand-in heeds; all others are taken for granted."""

    model: str
    served_model_names: tuple[str, ...]
    """Never empty; the first one labels the metrics and is in every answer."""
    port: int = DEFAULT_PORT
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    tensor_parallel_size: int = 1

    def non_default(self) -> dict[str, object]:
        """The arguments that were given, as vLLM prints them when it starts."""
        given: dict[str, object] = {"model": self.model}
        if self.served_model_names != (self.model,):
            given["served_model_name"] = list(self.served_model_names)
        if self.port != DEFAULT_PORT:
            given["port"] = self.port
        if self.max_model_len is not None:
            given["max_model_len"] = self.max_model_len
        if self.max_num_seqs is not None:
            given["max_num_seqs"] = self.max_num_seqs
        if self.tensor_parallel_size != 1:
            given["tensor_parallel_size"] = self.tensor_parallel_size
        return given


def server_arguments(spec: JsonObject, hostname: str) -> ServerArguments:
    """The arguments that the container of an app (API `AppSpec`) gives to vLLM.

    Without a command the image's entrypoint runs, which is vLLM without a model. Raises CommandError when
    the process cannot start: no vLLM in the command, no model, a value that is no number.
    """
    environment = {"HOSTNAME": hostname, **_environment(spec.get("envVars"))}
    words = spec.get("command") or ["vllm", "serve"]
    if not isinstance(words, list):
        raise CommandError(f"command: a list of strings is needed, not {type(words).__name__}")
    return _parse(_vllm_words([str(word) for word in words], environment))


def _environment(variables: JsonValue) -> dict[str, str]:
    pairs = variables if isinstance(variables, list) else []
    return {
        str(pair["name"]): str(pair.get("value") or "")
        for pair in pairs
        if isinstance(pair, dict) and "name" in pair
    }


def _vllm_words(command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The words after `vllm serve` or the server's module, wherever they are in a command."""
    segments: list[list[str]] = [list(command)]
    if len(command) >= 3 and command[0] in _SHELLS and command[1].startswith("-") and "c" in command[1]:
        segments = _shell_segments(command[2], environment)
    for words in segments:
        for index, word in enumerate(words):
            if word == "vllm.entrypoints.openai.api_server":
                return words[index + 1 :]
            if word.rsplit("/", 1)[-1] == "vllm" and words[index + 1 : index + 2] == ["serve"]:
                return words[index + 2 :]
    raise CommandError(
        f"no vLLM server in the command (its first word is {command[0]!r}); only vLLM runs here"
    )


def _shell_segments(script: str, environment: Mapping[str, str]) -> list[list[str]]:
    """The simple commands of a shell script, with variables filled in (in single quotes, too)."""
    lines = script.replace("\\\n", " ").replace("\n", " ; ")
    lexer = shlex.shlex(lines, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    segments: list[list[str]] = [[]]
    try:
        words = list(lexer)
    except ValueError as error:
        raise CommandError(f"bash: -c: {error}") from None
    for word in words:
        if word and set(word) <= _OPERATORS:
            segments.append([])
        else:
            segments[-1].append(_VARIABLE.sub(lambda found: environment.get(found[1] or found[2], ""), word))
    return segments


def _parse(words: Sequence[str]) -> ServerArguments:
    values: dict[str, list[str]] = {}
    positional: list[str] = []
    for flag, given in _flags(words):
        if flag is None:
            positional += given
        else:
            values[flag] = given
    model = positional[0] if positional else _one(values, "--model")
    if model is None:
        raise CommandError(
            "api_server.py: error: no model was given (--model); vLLM would load its tiny default model"
        )
    return ServerArguments(
        model=model,
        served_model_names=tuple(values.get("--served-model-name", ())) or (model,),
        port=_integer(values, "--port") or DEFAULT_PORT,
        max_model_len=_integer(values, "--max-model-len"),
        max_num_seqs=_integer(values, "--max-num-seqs"),
        tensor_parallel_size=_integer(values, "--tensor-parallel-size") or _integer(values, "-tp") or 1,
    )


def _flags(words: Sequence[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Flags with the words after them; words before the first flag come with None.

    vLLM takes `--max_model_len` for `--max-model-len`. Words after a flag without a value would be
    positional: only the first words of a command are taken as such here.
    """
    flag: str | None = None
    given: list[str] = []
    for word in words:
        if _FLAG.match(word) is None:
            given.append(word)
            continue
        yield flag, given
        name, equals, value = word.partition("=")
        flag, given = name.replace("_", "-"), [value] if equals else []
    yield flag, given


def _one(values: Mapping[str, list[str]], flag: str) -> str | None:
    if flag not in values:
        return None
    if len(values[flag]) != 1:
        raise CommandError(f"api_server.py: error: argument {flag}: expected one argument")
    return values[flag][0]


def _integer(values: Mapping[str, list[str]], flag: str) -> int | None:
    text = _one(values, flag)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise CommandError(f"api_server.py: error: argument {flag}: invalid int value: {text!r}") from None
