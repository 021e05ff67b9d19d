"""Types of single settings: what a value must look like, and what a user is told when it does not."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from components.flavors import FLAVORS, REGIONS
from dashboards import target as monitoring
from dashboards.rules import Severity


def _matching(pattern: str, problem: str) -> AfterValidator:
    """Accepts text that the regular expression matches as a whole; refuses other text with `problem`."""
    expression = re.compile(pattern)

    def check(value: str) -> str:
        if expression.fullmatch(value) is None:
            raise ValueError(problem)
        return value

    return AfterValidator(check)


def _one_of(allowed: tuple[str, ...], what: str) -> AfterValidator:
    """Accepts one of the values; refuses others as "is no <what>"."""

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"is no {what}; allowed: {', '.join(allowed)}")
        return value

    return AfterValidator(check)


_IMAGE = re.compile(
    r"[^\s:@]+(?::\d+/[^\s:@]+)?(?::(?P<tag>\w[\w.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?"
)


def _image(value: str) -> str:
    match = _IMAGE.fullmatch(value)
    if match is None or not (match["digest"] or match["tag"] not in (None, "latest")):
        raise ValueError("must name a tag other than latest, or a digest (name:tag or name@sha256:…)")
    return value


def _cluster_region(value: str) -> str:
    if value.upper() in REGIONS:
        raise ValueError(
            "is a region of the AI products; Managed Kubernetes has numbered ones, such as GRA11"
        )
    if not re.fullmatch(r"[A-Z][A-Z0-9-]*", value):
        raise ValueError("must be a region in capitals, such as GRA11")
    return value


def _certificate(value: str) -> str:
    if value:
        # Here, since cryptography would cost every preview 30 ms.
        from components.certificate import check_chain

        try:
            check_chain(value)
        except ValueError:
            raise ValueError("must be the text of a PEM file (-----BEGIN CERTIFICATE-----…)") from None
    return value


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"must be a range in CIDR notation such as 203.0.113.0/24 ({error})") from None


def _target(value: Decimal) -> Decimal:
    if not 0 < value < Decimal(10**9):
        raise ValueError("must be greater than 0 (the platform scales to zero otherwise), and below 10⁹")
    return value


def is_address(text: str) -> bool:
    """Whether a text is an http or https URL with a host."""
    try:
        parts = urlsplit(text)
        complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets, or a port that is none
        return False
    return complete and not re.search(r"\s", text)


def _url(value: str) -> str:
    if not is_address(value):
        raise ValueError("must be an address such as https://host/path, with https:// or http://")
    return value


def _platform_url(value: str) -> str:
    # A token is sent there, and a path is added.
    if not re.fullmatch(r"https://[^\s/?#@]+/?", value):
        raise ValueError("must be https://host of the AI platform, without /v1 (here or in OVH_AI_URL)")
    return _url(value)


def _optional(check: Callable[[str], str]) -> AfterValidator:
    """Accepts no text at all besides what `check` accepts."""

    def checked(value: str) -> str:
        return check(value) if value else value

    return AfterValidator(checked)


def _optional_secret(check: Callable[[str], str]) -> AfterValidator:
    """The same for a secret, without white space at its ends: that came along by accident, unseen."""

    def checked(value: SecretStr) -> SecretStr:
        text = value.get_secret_value().strip()
        return SecretStr(check(text) if text else text)

    return AfterValidator(checked)


def _slack_url(value: str) -> str:
    if urlsplit(_url(value)).path.startswith("/api/"):
        raise ValueError(
            "must be an incoming webhook (https://hooks.slack.com/services/…), no method of the API"
        )
    return value


def _pager_duty_key(value: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z]{32}", value):
        raise ValueError("must be an integration key of the Events API v2, 32 letters and digits")
    return value


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be one line of text")
    return value


_MAILBOX = r"[^\s@,<>]+@[^\s@,<>]+"


def _host_port(value: str) -> str:
    match = re.fullmatch(r"[^\s:/@]+:(\d{1,5})", value)
    if match is None or not 0 < int(match[1]) < 65536:
        raise ValueError("must be host:port, such as smtp.example.com:587")
    return value


_DURATION = re.compile(r"(\d+)(ms|s|m|h|d|w|y)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def seconds(duration: str) -> float:
    """Seconds of a Prometheus duration with one unit, such as `15s`; ValueError for anything else."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError("must be a duration such as 15s, 5m or 15d")
    return int(match[1]) * _SECONDS[match[2]]


def _duration(value: str) -> str:
    if not seconds(value):
        raise ValueError("must be longer than 0")
    return value


def _scrape_interval(value: str) -> str:
    if not 5 <= seconds(value) <= 60:
        raise ValueError(
            "must be from 5s (the interval of the endpoint's scrapes) to 1m (alerts look back two minutes)"
        )
    return value


_SIZE = re.compile(r"(\d+)(MiB|GiB|TiB|MB|GB|TB)")
_GIB = {"MiB": 1 / 1024, "GiB": 1, "TiB": 1024, "MB": 1e6 / 2**30, "GB": 1e9 / 2**30, "TB": 1e12 / 2**30}


def gibibytes(size: str) -> float:
    """GiB of a Prometheus size such as `40GiB`; ValueError for anything else."""
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ValueError("must be a size such as 40GiB")
    return int(match[1]) * _GIB[match[2]]


def _size(value: str) -> str:
    gibibytes(value)
    return value


Text = Annotated[str, Field(min_length=1)]
"""Any text but none."""
Word = Annotated[str, _matching(r"\S+", "must be one word, without white space")]
"""Text without white space, which only a slip can put there."""
LabelValue = Annotated[
    str,
    _matching(
        r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?",
        "must be lower case letters, digits and hyphens (it becomes part of object names)",
    ),
]
"""Part of the names of Kubernetes objects and value of a label."""
NodePoolName = Annotated[
    str,
    _matching(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", "must be lower case letters, digits and hyphens, as the API demands"
    ),
]
"""Name of a node pool, by the API's own rule."""
ServiceName = Annotated[str, _matching(r"[0-9a-f]{32}", "must be the project's id, 32 hexadecimal digits")]
"""Id of a Public Cloud project."""
Image = Annotated[str, AfterValidator(_image)]
"""A container image that will be the same one tomorrow."""
GpuFlavor = Annotated[
    str,
    _one_of(tuple(flavor.id for flavor in FLAVORS.values() if flavor.is_gpu), "GPU flavor of AI Deploy"),
]
"""A flavor of AI Deploy that has a GPU."""
AiRegion = Annotated[str, _one_of(REGIONS, "region of the AI products")]
"""A region of AI Deploy."""
ClusterRegion = Annotated[str, AfterValidator(_cluster_region)]
"""A region of Managed Kubernetes; which there are is for the API to say."""
KubernetesVersion = Annotated[
    str,
    _matching(r"1\.\d\d", 'must be a minor version in quotes, such as "1.30" (YAML reads 1.30 as 1.3)'),
]
"""A minor version of Kubernetes."""
MetricSelector = Annotated[
    str,
    _matching(
        r"[a-zA-Z_:][\w:]*(\{.*\})?",
        "must be a series, with or without labels; the platform's scaler knows no functions",
    ),
]
"""What the scaler reads in the text of `/metrics`."""
Target = Annotated[Decimal, AfterValidator(_target)]
"""Value of the metric that the scaler holds."""
Network = Annotated[str, AfterValidator(_network)]
"""A source range in CIDR notation."""
ChartVersion = Annotated[str, _matching(r"\d+\.\d+\.\d+", "must be a whole version such as 88.5.3")]
"""Version of a Helm chart."""
Url = Annotated[str, AfterValidator(_url)]
"""An HTTP address."""
OptionalUrl = Annotated[str, _optional(_url)]
"""An HTTP address, or nothing."""
PlatformUrl = Annotated[str, _optional(_platform_url)]
"""Address of the AI platform's API, or nothing."""
OptionalAppId = Annotated[
    str,
    _matching(r"([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?", "must be the id of an app (a UUID), or empty"),
]
"""Id of an AI Deploy app, or nothing."""
Duration = Annotated[str, AfterValidator(_duration)]
"""A Prometheus duration with one unit, such as `15s`."""
ScrapeInterval = Annotated[str, AfterValidator(_scrape_interval)]
"""Time between two scrapes, and between two evaluations of a rule."""
Size = Annotated[str, AfterValidator(_size)]
"""A Prometheus size, such as `40GiB`."""
Gibibytes = Annotated[int, Field(ge=1)]
"""Size of a volume in GiB."""
Certificate = Annotated[str, AfterValidator(_certificate)]
"""A PEM certificate chain, or nothing."""
SecretUrl = Annotated[SecretStr, _optional_secret(_url)]
"""An HTTP address that is a secret, or nothing."""
SlackUrl = Annotated[SecretStr, _optional_secret(_slack_url)]
"""Address of an incoming webhook, a secret, or nothing."""
SlackChannel = Annotated[
    str,
    _matching(
        r"([#@]\S+|[CDG][A-Z0-9]{8,})?",
        'must be a channel such as "#alerts" (in quotes), the id of one, or empty',
    ),
]
"""Where Slack shows a message, or nothing."""
PagerDutyKey = Annotated[SecretStr, _optional_secret(_pager_duty_key)]
"""Integration key of PagerDuty's Events API v2, or nothing."""
SmtpPassword = Annotated[SecretStr, _optional_secret(_one_line)]
"""Password of a mail server, or nothing."""
SmtpUser = Annotated[str, _matching(r"(\S(.*\S)?)?", "must not begin or end with white space")]
"""User of a mail server, or nothing."""
Mailbox = Annotated[
    str, _matching(f"({_MAILBOX})?", "must be one address such as alerts@example.com, or empty")
]
"""An e-mail address, or nothing."""
Mailboxes = Annotated[
    str,
    _matching(
        f"({_MAILBOX}(, *{_MAILBOX})*)?",
        "must be one or more addresses such as oncall@example.com, with commas between them, or empty",
    ),
]
"""E-mail addresses, or nothing."""
HostPort = Annotated[str, _optional(_host_port)]
"""A TCP address, or nothing."""
Receiver = Literal["webhook", "slack", "email", "pagerduty"]
"""Where alerts can be sent to."""
AlertRoutes = dict[Severity, list[Receiver]]
"""Receivers of the alerts of a severity."""
Percent = Annotated[float, Field(gt=0, le=99.9999, allow_inf_nan=False)]
"""A share that is neither nothing nor everything, nor anything that is rounded to it."""


class _Objective(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class Share(_Objective):
    """That so many percent of all events are good."""

    percent: Percent

    @property
    def ratio(self) -> float:
        """The share as a number between 0 and 1."""
        return round(self.percent / 100, 9)


class Latency(Share):
    """That so many percent of all events take at most so many seconds."""

    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ServiceLevelObjectives(_Objective):
    """What users may expect of an endpoint, over seven days."""

    time_to_first_token: Latency
    inter_token_latency: Latency
    success: Share
    availability: Share

    @property
    def objectives(self) -> monitoring.Objectives:
        """The same as rules and dashboards know it."""
        return monitoring.Objectives(
            time_to_first_token=_latency(self.time_to_first_token),
            inter_token_latency=_latency(self.inter_token_latency),
            success=self.success.ratio,
            availability=self.availability.ratio,
        )


def _latency(objective: Latency) -> monitoring.Latency:
    return monitoring.Latency(objective.seconds, objective.ratio)
