"""A settings file changes what it names; each mistake is told with file, key and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.cloud.settings import CloudSettings, Credentials
from sandbox.settings import SandboxSettings, SandboxSettingsError, read

DEFAULTS = SandboxSettings(CloudSettings(Credentials("key", "secret", "consumer"), "0" * 32))


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cloud.toml"
    path.write_text(text)
    return path


def test_what_is_not_named_stays(tmp_path: Path) -> None:
    text = "speed = 50\n[cloud]\ngpu_quota = 2\n[cloud.delays]\nimage_pull = 600\n"
    settings = read(file(tmp_path, text), DEFAULTS)
    assert (settings.speed, settings.cloud.gpu_quota, settings.cloud.delays.image_pull) == (50, 2, 600)
    assert settings.cloud.delays.cluster == DEFAULTS.cloud.delays.cluster
    assert settings.cloud.credentials == DEFAULTS.cloud.credentials


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sped = 50", "sped = 50: is not known; did you mean speed?"),
        ("[clud]\ngpu_quota = 2", "clud: is not known; did you mean cloud?"),
        ("[cloud.delays]\nimage = 1", "cloud.delays.image = 1: is not known"),
        ("cloud = 4", "cloud = 4: must be a table, [cloud]"),
        ("speed = 'fast'", "speed = 'fast'"),
        ("speed = 0", "speed = 0: Input should be greater than 0"),
        ("[cloud]\npolling_interval = 0", "cloud.polling_interval = 0"),
        ("[replicas]\ninference_speed = -1", "replicas.inference_speed = -1"),
        ("balancing = 'fair'", "balancing = 'fair'"),
        ("speed = ", "Invalid value"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SandboxSettingsError, match=r"cloud\.toml:") as error:
        read(file(tmp_path, text), DEFAULTS)
    assert message in str(error.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = file(tmp_path, "sped = 50\nspeed = 0\n[cloud]\ngpu_quota = 'four'\n[cloud.delays]\nimage = 1\n")
    with pytest.raises(SandboxSettingsError) as error:
        read(path, DEFAULTS)
    title, *lines = str(error.value).splitlines()
    assert title == f"4 mistakes in {path}:"
    assert [line.partition(": ")[0] for line in lines] == [
        "  - sped = 50",
        "  - speed = 0",
        "  - cloud.gpu_quota = 'four'",
        "  - cloud.delays.image = 1",
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxSettingsError, match=r"nowhere\.toml: No such file or directory$"):
        read(tmp_path / "nowhere.toml", DEFAULTS)
