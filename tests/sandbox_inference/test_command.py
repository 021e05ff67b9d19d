"""The command of an app is read as bash reads it; what vLLM makes of it is in test_arguments.py."""

from __future__ import annotations

import pytest

from autoscaling.arguments import ServerArguments
from sandbox.inference.command import CommandError, server_arguments
from sandbox.interfaces import JsonObject, JsonValue

MINISTRAL = "mistralai/Ministral-3-14B-Instruct-2512"
ARTICLE = (
    f"python3 -m vllm.entrypoints.openai.api_server --model {MINISTRAL} --tokenizer_mode mistral "
    "--load_format mistral --config_format mistral --enable-auto-tool-choice --tool-call-parser mistral "
    "--enable-prefix-caching"
)


def parse(*command: str, **variables: str) -> ServerArguments:
    words: list[JsonValue] = [*command]
    environment: list[JsonValue] = [{"name": name, "value": value} for name, value in variables.items()]
    return server_arguments({"command": words, "envVars": environment}, hostname="host-1")


def test_the_command_of_the_article() -> None:
    assert parse("bash", "-c", ARTICLE) == ServerArguments(MINISTRAL, (MINISTRAL,))


@pytest.mark.parametrize(
    "command",
    [
        (
            "vllm",
            "serve",
            "m",
            "--port",
            "9000",
            "--max-model-len",
            "4096",
            "--max-num-seqs",
            "8",
            "-tp",
            "2",
        ),
        (
            *("/usr/bin/vllm", "serve", "--model=m", "--port=9000"),
            *("--max_model_len=4096", "--max_num_seqs=8", "--tensor_parallel_size=2"),
        ),
        (
            *("sh", "-lc"),
            "export A=1 && cd /tmp; (agent --model x > log 2>&1 &)\nexec vllm serve 'm' \\\n"
            '  --port "$PORT" --max-model-len ${LENGTH} --max-num-seqs 8 --tensor-parallel-size 2 | tee log',
        ),
    ],
    ids=["words", "equals", "script"],
)
def test_ways_to_write_the_same_command(command: tuple[str, ...]) -> None:
    expected = ServerArguments(
        "m", ("m",), port=9000, max_model_len=4096, max_num_seqs=8, tensor_parallel_size=2
    )
    assert parse(*command, PORT="9000", LENGTH="4096") == expected


def test_served_names_may_hold_the_host_name() -> None:
    arguments = parse("bash", "-c", 'vllm serve m --served-model-name "m@$HOSTNAME" m --seed 1')
    assert arguments.served_model_names == ("m@host-1", "m")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({}, "no model was given"),
        ({"command": None}, "no model was given"),
        ({"command": ["vllm", "serve", "--port", "8000"]}, "no model was given"),
        ({"command": ["nginx"]}, "first word is 'nginx'"),
        ({"command": ["vllm", "serve", "m", "--port", "http"]}, "--port: invalid int value: 'http'"),
        ({"command": ["bash", "-c", "vllm serve 'm"]}, "No closing quotation"),
        ({"command": "vllm serve m"}, "a list of strings"),
    ],
)
def test_commands_that_end_at_once(spec: JsonObject, problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        server_arguments(spec, "host-1")
