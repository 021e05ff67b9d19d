"""Canaries in every secret, looked for wherever a secret might turn up."""

from __future__ import annotations

import base64
import datetime
import gzip
import json
import os
import re
import stat
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sandbox import processes
from sandbox.engine import Engine
from sandbox.project import CHECKOUT
from sandbox.sandbox import Sandbox
from tests.engine.cluster import kubernetes_client
from tests.engine.command_lines import command_lines
from tests.engine.conftest import CANARY, Deployment, loud
from tests.engine.meanwhile import meanwhile

# Several updates belong to one fixture, and other tests run at the same time.
pytestmark = pytest.mark.timeout(900)

NEXT_CANARY = "hf_another9876543210"
"""The Hugging Face token after a change."""

# --- the search ---


def forms(secret: str) -> dict[str, str]:
    """The texts in which a secret can hide, each with the name of its form."""
    escaped = json.dumps(secret)[1:-1]
    quoted = urllib.parse.quote(secret, safe="")
    texts = [
        ("raw", secret),
        ("JSON", escaped),
        ("JSON in JSON", json.dumps(escaped)[1:-1]),
        ("URL", quoted),
        ("URL", re.sub("%..", lambda match: match[0].lower(), quoted)),
        ("URL", urllib.parse.quote_plus(secret)),
    ]
    for before in range(3):
        # What stands before and after it decides on the characters at both ends.
        first = -(-before * 4 // 3)
        whole = (before + len(secret.encode())) // 3 * 4
        texts += [
            ("base64", encode(bytes(before) + secret.encode()).decode()[first:whole])
            for encode in (base64.b64encode, base64.urlsafe_b64encode)
        ]
    # A text that two forms share goes by the name of the first one.
    return {text: form for form, text in reversed(texts)}


class Find(NamedTuple):
    """A secret where it should not be."""

    secret: str
    place: str
    form: str


def found(secrets: Mapping[str, str], places: Mapping[str, str | bytes]) -> list[Find]:
    """Which secret is in which place, and in what form; names, not values."""
    contents = {name: text.encode() if isinstance(text, str) else text for name, text in places.items()}
    return sorted(
        {
            Find(name, place, form)
            for name, secret in secrets.items()
            for text, form in forms(secret).items()
            for place, content in contents.items()
            if text.encode() in content
        }
    )


AWKWARD = 'a"b\\c/d+e f=g?h&i\nj:k%l'


@pytest.mark.parametrize(
    ("form", "text"),
    [
        pytest.param("raw", f"the token {AWKWARD} was refused", id="raw"),
        pytest.param("JSON", json.dumps({"env": {"HF_TOKEN": AWKWARD}}), id="JSON"),
        pytest.param("JSON in JSON", json.dumps({"body": json.dumps({"t": AWKWARD})}), id="JSON in JSON"),
        pytest.param("URL", urllib.parse.urlencode({"q": AWKWARD}), id="query"),
        pytest.param("URL", f"/{urllib.parse.quote(AWKWARD, safe='')}", id="path"),
        *(
            pytest.param("base64", encode(f"{'<>?'[:before]}{AWKWARD}{after}".encode()), id=f"{before}-{id_}")
            for before in range(3)
            for after in ("", "~", "~~")
            for encode, id_ in (
                (base64.b64encode, f"{after}-b64"),
                (base64.urlsafe_b64encode, f"{after}-url"),
            )
        ),
    ],
)
def test_the_search_finds_a_secret_in_each_form(form: str, text: str | bytes) -> None:
    secrets = {"canary": AWKWARD, "other": "z" * 20}
    places = {"here": text, "there": json.dumps(AWKWARD[:-1])}
    assert Find("canary", "here", form) in found(secrets, places)
    assert {(find.secret, find.place) for find in found(secrets, places)} == {("canary", "here")}


# --- what there is to see ---


@dataclass
class Evidence:
    """All secrets of a deployment, and what can be seen of it."""

    secrets: dict[str, str] = field(default_factory=dict)
    places: dict[str, str | bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """Every file of the sandbox, by its path in the sandbox's folder."""


@pytest.fixture(scope="module")
def evidence(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """Changes each secret that can be changed, meets errors that repeat secrets, and looks around."""
    directory, seen = tmp_path_factory.mktemp("evidence"), Evidence()
    connection = deployment.sandbox.connection
    former = replace(deployment.engine, environment={**deployment.engine.environment, **watched(directory)})
    engine = replace(former, environment={**former.environment, "HF_TOKEN": NEXT_CANARY})
    certificate, key = pem_pair()
    seen.secrets = {
        "Hugging Face token": CANARY,
        "next Hugging Face token": NEXT_CANARY,
        "application secret": connection.application_secret,
        "consumer key": connection.consumer_key,
        "passphrase": connection.passphrase,
        "private key of the settings": inside(key),
        **secrets_in_state(deployment),
    }
    settings = ["--plaintext=tokenGeneration=2", f"--plaintext=grafanaCertificate={certificate}"]
    settings.append(f"--secret=grafanaPrivateKey={key}")
    account = [
        f"--secret=ovh:applicationKey={connection.application_key}",
        f"--secret=ovh:applicationSecret={connection.application_secret}",
        f"--secret=ovh:consumerKey={connection.consumer_key}",
    ]
    update = ("up", "--yes", "--skip-preview", "--continue-on-error")
    lines: set[str] = set()

    def run(name: str, *arguments: str, fails: bool = False) -> None:
        events = directory / f"{name}.events"
        with watching(lines):
            seen.places[name] = said(engine, *arguments, f"--event-log={events}", fails=fails)
        seen.places[f"events of the {name}"] = events.read_bytes()

    engine.capture("config", "set-all", "-s", "sandbox", *settings)
    try:
        run("preview", "preview", "--diff", "--debug")
        with refused(deployment, r"/ai/app/[^/]+$", seen.secrets):
            run("failing update", *update, "--diff", "--debug", fails=True)
        # Only now: the engine hides the secrets of its configuration in whatever it is told.
        engine.capture("config", "set-all", "-s", "sandbox", *account)
        plan = directory / "plan.json"
        run("preview as JSON", "preview", "--json", f"--save-plan={plan}")
        with failing(deployment, seen.secrets):
            run("update as JSON", *update, "--json", f"--plan={plan}", fails=True)
        seen.secrets |= secrets_in_state(deployment)
        seen.places |= {
            "saved plan": plan.read_bytes(),
            "state": said(engine, "stack", "export"),
            "outputs": said(engine, "stack", "output"),
            "configuration": said(engine, "config"),
            "history": said(engine, "stack", "history", "--json"),
            "arguments of processes": "\n".join(sorted(lines)),
            **in_files(directory / "tmp", "temporary file"),
            **in_files(directory / "logs", "log of process"),
            **in_environments(deployment.sandbox),
            **in_services(deployment.sandbox),
            **in_cluster(engine, directory),
        }
        seen.files = in_files(deployment.sandbox.folder.root)
        yield seen
    finally:
        keys = [setting.split("=")[1] for setting in (*settings, *account)]
        engine.capture("config", "rm-all", "-s", "sandbox", *keys)
        former.capture(*update, "-s", "sandbox")


def watched(directory: Path) -> dict[str, str]:
    """Environment of an engine whose processes leave temporary files and logs in folders of `directory`."""
    for name in ("tmp", "logs"):
        (directory / name).mkdir()
    return {
        **loud(directory / "loud", f"filename=f'{directory / 'logs'}/{{os.getpid()}}'"),
        "TMPDIR": str(directory / "tmp"),
        # Without them the engine has neither event logs nor updates by a plan.
        "PULUMI_DEBUG_COMMANDS": "1",
        "PULUMI_EXPERIMENTAL": "1",
    }


def said(engine: Engine, *arguments: str, fails: bool = False) -> str:
    """What a command on the stack writes, to either stream."""
    result = subprocess.run(
        [engine.pulumi, *arguments, "--stack=sandbox"],
        env={**os.environ, **engine.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (result.returncode != 0) == fails, result.stdout
    return result.stdout


@contextmanager
def refused(deployment: Deployment, path: str, secrets: Mapping[str, str]) -> Iterator[None]:
    """Lets changes at a path be refused, with an error that repeats everything that it was sent and had."""
    faults = f"{deployment.sandbox.connection.api}/sandbox/faults"
    message = f"{REFUSAL}: {echo(secrets, 'Hugging Face token', *SENT)}"
    body = {"class": "Client::BadRequest", "message": message}
    fault = {"method": "PUT", "path": path, "count": 100, "status": 400, "body": body}
    httpx.post(faults, json=fault).raise_for_status()
    try:
        yield
    finally:
        httpx.delete(faults).raise_for_status()


@contextmanager
def failing(deployment: Deployment, secrets: Mapping[str, str]) -> Iterator[None]:
    """Lets the app fail whenever it starts, in words that repeat what it was sent, and so does its log."""
    sandbox = f"{deployment.sandbox.connection.api}/sandbox"
    apps = {"name": "^vllm-ministral"}
    end = {**apps, "state": "FAILED", "message": f"{FAILURE}: {echo(secrets, *SENT)}"}

    def fail() -> None:
        if any(thing["detail"].get("state") == "SCALING" for thing in deployment.sandbox.resources()):
            httpx.post(f"{sandbox}/end", json=end).raise_for_status()

    httpx.post(f"{sandbox}/stuck", json={**apps, "state": "SCALING"}).raise_for_status()
    try:
        with meanwhile(fail, 0.1):
            yield
    finally:
        httpx.delete(f"{sandbox}/stuck").raise_for_status()


REFUSAL = "the settings of the app make no sense"
FAILURE = "the container has ended"
SENT = ("next Hugging Face token", "application secret", "consumer key")


def echo(secrets: Mapping[str, str], *names: str) -> str:
    """What a careless platform says."""
    return json.dumps({name: secrets[name] for name in names})


def watching(lines: set[str]) -> AbstractContextManager[None]:
    """Collects the command lines of all processes that can be seen meanwhile."""

    return meanwhile(lambda: lines.update(command_lines()), 0.05)


def secrets_in_state(deployment: Deployment) -> dict[str, str]:
    """The secrets that an update made, out of the state of the stack."""
    secrets = {}
    for resource in deployment.state():
        name, outputs = resource["urn"].rpartition("::")[2], resource.get("outputs", {})
        match resource["type"]:
            case "pulumi-python:dynamic/ai-deploy:Token" | "pulumi-python:dynamic/generated:Password":
                secrets[name] = outputs["value"]
            case "pulumi-python:dynamic/generated:SelfSignedCertificate":
                secrets[name] = inside(outputs["key_pem"])
            case "ovh:CloudProject/user:User":
                secrets[name] = outputs["password"]
            case "ovh:CloudProject/kube:Kube":
                key = outputs["kubeconfigAttributes"][0]["clientKey"]
                secrets["kubeconfig"] = key
                secrets["key of the kubeconfig"] = inside(base64.b64decode(key).decode())
    return secrets


def pem_pair() -> tuple[str, str]:
    """A certificate for Grafana and its private key, as a user would set them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), pem.decode()


def inside(pem: str) -> str:
    """A line of a PEM file: it is found however lines are ended."""
    return pem.splitlines()[1]


def in_files(directory: Path, kind: str = "") -> dict[str, bytes]:
    """The contents of all files, unpacked."""
    contents = {}
    for path in directory.rglob("*"):
        # Prometheus writes, and the cluster's files follow its objects.
        with suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                packed = content.startswith(b"\x1f\x8b")
                name = f"{kind} {path.relative_to(directory)}".strip()
                contents[name] = gzip.decompress(content) if packed else content
    return contents


def in_environments(sandbox: Sandbox) -> dict[str, bytes]:
    """The environments of the processes that go on running."""
    return {
        f"environment of {' '.join(process.command[:3])}": Path(f"/proc/{process.id}/environ").read_bytes()
        for process in processes.find(sandbox.folder.root)
    }


def in_services(sandbox: Sandbox) -> dict[str, bytes]:
    """What Prometheus, Alertmanager and the records of the local cloud show to everybody."""
    [addresses] = sandbox.addresses()
    urls = [
        *(f"{addresses.prometheus}/api/v1/{what}" for what in ("status/config", "status/flags", "targets")),
        f"{addresses.alertmanager}/api/v2/status",
        *(f"{addresses.api}/sandbox/{what}" for what in ("calls", "resources", "bill", "monitoring")),
    ]
    return {url: httpx.get(url).raise_for_status().content for url in urls}


def in_cluster(engine: Engine, directory: Path) -> dict[str, bytes]:
    """Every object of the cluster, Secrets without their data, and what Helm's records of releases hold."""
    outputs = engine.outputs("sandbox")
    places = {}
    with kubernetes_client(outputs["kubeconfig"], directory) as client:

        def get(path: str) -> Any:
            return client.get(path).raise_for_status().json()

        versions = [
            "/api/v1",
            *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in get("/apis")["groups"]),
        ]
        listable = [
            (version, resource["name"])
            for version in versions
            for resource in get(version)["resources"]
            if "list" in resource["verbs"] and "/" not in resource["name"]
        ]
        for version, resource in listable:
            for item in get(f"{version}/{resource}")["items"]:
                metadata = item["metadata"]
                name = f"{resource} {metadata.get('namespace', '')}/{metadata['name']}"
                data = item.pop("data", {}) if resource == "secrets" else {}
                places[name] = json.dumps(item).encode()
                if item.get("type") == "helm.sh/release.v1":
                    record = base64.b64decode(base64.b64decode(data["release"]))
                    places[f"record of the release {metadata['name']}"] = gzip.decompress(record)
    return places


# --- what must not be seen ---


def test_every_kind_of_secret_is_looked_for(evidence: Evidence) -> None:
    assert set(evidence.secrets) == {
        "Hugging Face token",
        "next Hugging Face token",
        "application secret",
        "consumer key",
        "passphrase",
        "private key of the settings",
        "monitoring-grafana-certificate",
        "monitoring-grafana-password",
        "monitoring-openstack-user",
        "kubeconfig",
        "key of the kubeconfig",
        *(f"vllm-{user}-token-{generation}" for user in ("client", "scraper") for generation in (1, 2)),
    }
    assert len(set(evidence.secrets.values())) == len(evidence.secrets)
    assert min(map(len, evidence.secrets.values())) >= 16


def test_no_secret_is_in_what_can_be_seen(evidence: Evidence) -> None:
    finds = found(evidence.secrets, evidence.places)
    assert not finds, "\n".join(map(str, finds))


def test_what_was_looked_at_is_what_it_is_called(evidence: Evidence) -> None:
    def place(name: str) -> str:
        content = evidence.places[name]
        return content if isinstance(content, str) else content.decode()

    for command in ("preview", "failing update", "preview as JSON", "update as JSON"):
        assert "resourcePreEvent" in place(f"events of the {command}"), command
    assert "HF_TOKEN" in place("preview")
    assert "HF_TOKEN" in place("preview as JSON")
    assert "debug: " in place("failing update")
    assert REFUSAL in place("failing update")
    assert FAILURE in place("update as JSON")
    assert FAILURE in place("state")
    assert "vllm-client-token-2" in place("saved plan")
    assert "vllm-client-token-2" in place("state")
    assert "client_token" in place("outputs")
    assert "grafanaPrivateKey" in place("configuration")
    for program in (
        "pulumi up",
        "pulumi-language-python",
        "pulumi.dynamic",
        "sandbox.plugins.",
        "/prometheus",
    ):
        assert program in place("arguments of processes"), program
    kinds = {name.partition(" ")[0] for name in evidence.places}
    assert {
        "log",
        "environment",
        "configmaps",
        "events",
        "pods",
        "prometheuses",
        "record",
        "secrets",
    } <= kinds
    assert any("DEBUG" in place(name) for name in evidence.places if name.startswith("log of process"))
    assert b" DEBUG " in evidence.files["log/cloud.log"] or b"DEBUG:" in evidence.files["log/cloud.log"]


def test_files_that_hold_secrets_are_few_and_for_their_owner_only(
    deployment: Deployment, evidence: Evidence
) -> None:
    root = deployment.sandbox.folder.root
    holders: dict[str, set[str]] = {}
    for find in found(evidence.secrets, evidence.files):
        holders.setdefault(find.place, set()).add(find.secret)
    assert {stat.S_IMODE((root / path).stat().st_mode) for path in holders} == {0o600}
    assert stat.S_IMODE(root.stat().st_mode) == 0o700

    account = {"application secret", "consumer key", "passphrase"}
    assert holders.pop("connection.json") == holders.pop("env") == account
    # Prometheus cannot scrape without a token, nor the exporter ask the platform.
    assert {Path(path).name for path in holders} == {"prometheus.yml", "token"}
    assert set().union(*holders.values()) <= {"vllm-scraper-token-1", "vllm-scraper-token-2"}


# --- tests and targets ---

PLUGIN = '''
"""Makes the secrets of test runs recognizable, and things that hold them."""

import os
import secrets
from dataclasses import replace

from components.ai_deploy.api import AiDeploy, App
from components.ai_deploy.client import OvhClient, _Token
from components.ai_deploy.credentials import AccessToken, ApplicationKey, Credentials, ServiceAccount
from components.ai_deploy.plan import Call, plan
from components.ai_deploy.spec import AppSpec, create_body
from components.ai_deploy.tokens import NewToken
from sandbox.cloud import settings, tokens
from sandbox.connection import Connection
from sandbox.engine import Engine
from sandbox.plugins.ovh.client import Credentials as PluginCredentials
from sandbox.tls import KeyPair
from tests.sandbox_cloud import fakes

CANARY = os.environ["CANARY"]
fakes.CREDENTIALS = replace(
    fakes.CREDENTIALS, application_secret=f"s{CANARY}", consumer_key=f"k{CANARY}", client_secret=f"c{CANARY}"
)
tokens._new_value = lambda: f"{CANARY}{secrets.token_hex(16)}"


def holders():
    fields = {"name": "vllm", "region": "GRA", "image": "vllm:1", "flavor": "l4-1-gpu", "gpu": 1}
    specs = [AppSpec(**fields, env={"HF_TOKEN": f"{CANARY}{number}"}) for number in range(2)]
    keys = ApplicationKey("key", CANARY, CANARY)
    client = OvhClient(Credentials("http://127.0.0.1", keys))
    changes = plan(*(spec.settings() for spec in specs))
    assert changes.calls
    return [
        *specs,
        changes,
        *changes.calls,
        Call("", create_body(specs[0])),
        App("id", create_body(specs[0]), {"state": "RUNNING"}),
        NewToken("id", "name", CANARY),
        client.credentials,
        Credentials("http://127.0.0.1", ServiceAccount("id", CANARY, "http://127.0.0.1")),
        Credentials("http://127.0.0.1", AccessToken(CANARY)),
        client,
        AiDeploy(client, "project", [CANARY]),
        settings.Credentials("key", CANARY, CANARY, "id", CANARY),
        Connection(
            "http://127.0.0.1", "https://127.0.0.1", "project", "key", CANARY, CANARY, CANARY, "/bundle"
        ),
        Engine("/pulumi", {"PULUMI_CONFIG_PASSPHRASE": CANARY}),
        PluginCredentials("http://127.0.0.1", "key", CANARY, CANARY, CANARY),
        KeyPair(b"certificate", CANARY.encode()),
        _Token(CANARY, 0.0),
    ]
'''

FAILING = """
import canaries


def test_that_fails():
    held = canaries.holders()
    spec, *others = held
    assert held == [spec]
"""


def test_pytest_shows_no_secret_however_much_it_is_asked_to_show(tmp_path: Path) -> None:
    (tmp_path / "canaries.py").write_text(PLUGIN)
    (tmp_path / "test_failing.py").write_text(FAILING)
    canary = "canary0f0pytest0123456789"
    arguments = [
        *("-p", "canaries", "-p", "no:cacheprovider", "-c", "pyproject.toml", "--rootdir=."),
        *("-rA", "-vv", "--showlocals", "--log-level=DEBUG", "--tb=long"),
        *(f"tests/ai_deploy/test_{name}.py" for name in ("client", "credentials", "tokens")),
        str(tmp_path),
    ]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "CANARY": canary, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert re.search(r"=+ 1 failed, \d+ passed", result.stdout)
    for shown_type in (
        "AppSpec(",
        "App(",
        "Call(",
        "NewToken(",
        "Credentials(",
        "OvhClient(",
        "Connection(",
        "Engine(",
    ):
        assert shown_type in result.stdout
    assert "Captured log call" in result.stdout
    finds = found({"canary": canary}, {"output": result.stdout, "errors": result.stderr})
    assert not finds, "\n".join(map(str, finds))


TELLTALE = re.compile(
    r"(?<![\w-])--(tracing|otel-traces|logtostderr|logflow|profiling|verbose)(?![\w-])"
    r"|(?<![\w-])-v(=|\s*)\d"
    r"|[\"']-v[\"']"
    r"|PULUMI_(OPTION_(TRACING|OTEL_TRACES|LOGTOSTDERR|LOGFLOW|PROFILING|VERBOSE)|DEBUG_GRPC)"
)
"""What makes the engine write logs or traces, which hold secrets by its design."""


@pytest.mark.parametrize(
    "line",
    [
        "pulumi up -v=9",
        "pulumi -v 9 up",
        "pulumi preview -v9",
        "pulumi up --logtostderr",
        "pulumi up --tracing=file:./trace",
        "export PULUMI_DEBUG_GRPC=log",
        "PULUMI_OPTION_VERBOSE=9 make sandbox",
        'engine.run("up", "-v", "9")',
        'engine.run("up", "--verbose=9")',
    ],
)
def test_what_makes_the_engine_write_secrets_is_recognized(line: str) -> None:
    assert TELLTALE.search(line)


def test_no_target_makes_the_engine_write_logs_or_traces() -> None:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.run(listed, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split(
        "\0"
    )
    # Tests talk about it, documents warn of it, pictures have no lines.
    ours = [name for name in files if name and not name.startswith("tests/")]
    ours = [name for name in ours if not name.endswith((".md", ".png"))]
    assert {"Makefile", ".ci/run", "sandbox/__main__.py", "sandbox/engine.py"} <= set(ours)
    telltale = [
        f"{name}:{number}: {line.strip()}"
        for name in ours
        if (CHECKOUT / name).is_file()
        for number, line in enumerate((CHECKOUT / name).read_text().splitlines(), start=1)
        if TELLTALE.search(line)
    ]
    assert telltale == []
