"""What the sandbox runs that is no Python package: which versions, and where each comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Version = tuple[int, int, int]
"""Major, minor, patch."""


def find_version(text: str) -> Version | None:
    """The first `major.minor.patch` in what a program prints about itself; None when it says none.

    A CLI made by a plain `go install` prints an empty version, for instance.
    """
    match = re.search(r"(?<![\d.])v?(\d+)\.(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


@dataclass(frozen=True)
class Release:
    """The official release of a tool: an archive for each platform, one file with the SHA-256 sums of all.

    The patterns know `{version}` (3.258.0) and `{arch}`. That an archive is laid out as said here is assumed;
    one that is not is passed over in favour of the next source.
    """

    archive: str
    """Path of the archive below the host that keeps the releases."""
    checksums: str
    """Path of the file of lines `<SHA-256 in hex>  <file name>`."""
    folder: str
    """The archive's folder that the binaries lie in; "" is its top."""
    architectures: Mapping[str, str]
    """`platform.machine()` to `{arch}`."""
    extras: tuple[str, ...] = ()
    """Patterns (fnmatch) of files to keep besides the tool's binaries and companions."""


@dataclass(frozen=True)
class GoBuild:
    """How to build a tool from the Go modules pinned in `go/<name>/`."""

    packages: tuple[str, ...]
    """Import paths of the commands, one a binary."""
    version_variable: str
    """The string variable that the linker sets to the version."""
    version_prefix: str = ""
    """What the project writes before its version number."""
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Companions that come ready made in a module: file name to (module, path in it)."""
    language_host: bool = False
    """Whether the Python language host of this folder has to be added."""


@dataclass(frozen=True)
class Tool:
    """A program, or a few that are released together."""

    name: str
    version: str
    """The release that is downloaded or built."""
    minimum: Version
    """The oldest one on PATH that will do; its major version must be this one's, too."""
    binaries: tuple[str, ...]
    version_argument: str
    """What makes a binary print its version."""
    release: Release
    go: GoBuild
    website: str
    """Where a user finds how to install it by hand."""
    companions: tuple[str, ...] = ()
    """Executables that the first binary looks for beside itself and on PATH."""

    @property
    def minimum_text(self) -> str:
        """The versions that will do, in words."""
        return f"{'.'.join(map(str, self.minimum))} or newer of major version {self.minimum[0]}"


PULUMI = Tool(
    name="pulumi",
    version="3.258.0",
    # The oldest CLI that was run with the SDK of requirements.txt. The SDK asks the engine for its features
    # and may well get on with older ones, but nobody has seen it.
    minimum=(3, 258, 0),
    binaries=("pulumi",),
    companions=("pulumi-language-python", "pulumi-resource-pulumi-python"),
    version_argument="version",
    release=Release(
        archive="pulumi/pulumi/releases/download/v{version}/pulumi-v{version}-linux-{arch}.tar.gz",
        checksums="pulumi/pulumi/releases/download/v{version}/pulumi-{version}-checksums.txt",
        folder="pulumi",
        architectures={"x86_64": "x64", "aarch64": "arm64"},
        extras=("pulumi-*-python*",),
    ),
    go=GoBuild(
        packages=("github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",),
        version_variable="github.com/pulumi/pulumi/sdk/v3/go/common/version.Version",
        version_prefix="v",
        files={
            "pulumi-resource-pulumi-python": (
                "github.com/pulumi/pulumi/sdk/v3",
                "python/dist/pulumi-resource-pulumi-python",
            )
        },
        language_host=True,
    ),
    website="https://www.pulumi.com/docs/install/",
)


def _prometheus(
    name: str,
    version: str,
    minimum: Version,
    binaries: tuple[str, ...],
    packages: tuple[str, ...],
    owner: str = "prometheus",
    website: str = "https://prometheus.io/download/",
) -> Tool:
    """A tool of the Prometheus project or its community: they are all released in the same way."""
    base = f"{owner}/{name}/releases/download/v{{version}}/"
    return Tool(
        name=name,
        version=version,
        minimum=minimum,
        binaries=binaries,
        version_argument="--version",
        release=Release(
            archive=f"{base}{name}-{{version}}.linux-{{arch}}.tar.gz",
            checksums=f"{base}sha256sums.txt",
            folder=f"{name}-{{version}}.linux-{{arch}}",
            architectures={"x86_64": "amd64", "aarch64": "arm64"},
        ),
        go=GoBuild(packages=packages, version_variable="github.com/prometheus/common/version.Version"),
        website=website,
    )


PROMETHEUS = _prometheus(
    "prometheus",
    "3.9.1",
    (3, 0, 0),
    ("prometheus", "promtool"),
    ("github.com/prometheus/prometheus/cmd/prometheus", "github.com/prometheus/prometheus/cmd/promtool"),
)
ALERTMANAGER = _prometheus(
    "alertmanager",
    "0.28.1",
    (0, 27, 0),
    ("alertmanager",),
    ("github.com/prometheus/alertmanager/cmd/alertmanager",),
)
JSON_EXPORTER = _prometheus(
    "json_exporter",
    "0.7.0",
    (0, 7, 0),
    ("json_exporter",),
    ("github.com/prometheus-community/json_exporter",),
    owner="prometheus-community",
    website="https://github.com/prometheus-community/json_exporter/releases",
)

ACTIONLINT = Tool(
    name="actionlint",
    version="1.7.12",
    # Older ones do not know anchors.
    minimum=(1, 7, 8),
    binaries=("actionlint",),
    version_argument="-version",
    release=Release(
        archive="rhysd/actionlint/releases/download/v{version}/actionlint_{version}_linux_{arch}.tar.gz",
        checksums="rhysd/actionlint/releases/download/v{version}/actionlint_{version}_checksums.txt",
        folder="",
        architectures={"x86_64": "amd64", "aarch64": "arm64"},
    ),
    go=GoBuild(
        packages=("github.com/rhysd/actionlint/cmd/actionlint",),
        version_variable="github.com/rhysd/actionlint.version",
    ),
    website="https://github.com/rhysd/actionlint",
)
"""Checks the workflows of GitHub; a tool of the tests, not of the sandbox."""

TOOLS = (PULUMI, PROMETHEUS, ALERTMANAGER, JSON_EXPORTER)
