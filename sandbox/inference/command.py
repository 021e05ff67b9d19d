"""What an app's spec makes vLLM do: its command, read as a shell reads it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from autoscaling.arguments import ArgumentsError, ServerArguments, parse
from sandbox.interfaces import JsonObject, JsonValue

_SHELLS = ("sh", "bash", "/bin/sh", "/bin/bash")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_OPERATORS = set("();<>|&")


class CommandError(ValueError):
    """The container's process ends at once; the text is what it prints."""


def server_arguments(spec: JsonObject, hostname: str) -> ServerArguments:
    """The arguments that the container of an app (API `AppSpec`) gives to vLLM.

    Without a command the image's entrypoint runs, which is vLLM without a model. Raises CommandError when
    the process cannot start: no vLLM in the command, no model, a value that is no number.
    """
    environment = {"HOSTNAME": hostname, **_environment(spec.get("envVars"))}
    words = spec.get("command") or ["vllm", "serve"]
    if not isinstance(words, list):
        raise CommandError(f"command: a list of strings is needed, not {type(words).__name__}")
    try:
        return parse(_vllm_words([str(word) for word in words], environment))
    except ArgumentsError as error:
        raise CommandError(str(error)) from None


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
