"""`python -m doctor STACK`: prints what was found.

The exit status is 1 when there is a problem, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator

from components.ai_deploy.client import OvhClient
from components.ai_deploy.credentials import CredentialsError, find_credentials
from components.settings import SettingsError
from doctor import checks, gather, rights
from doctor.finding import Finding, ok, problem, table, unknown


def examine(name: str) -> Iterator[Finding]:
    """Looks at everything that the stack needs, as far as what it builds upon is there."""
    stack, identities, finding = gather.backend(name)
    yield finding
    if stack is None:
        yield unknown("all else", "was not looked at: it depends on the settings", "mend this first")
        return
    try:
        settings = stack.settings()
    except SettingsError as error:
        yield problem("settings", str(error), "mend them; they are all that `pulumi preview` would tell, too")
        return
    yield ok("settings", f"Pulumi.{name}.yaml has no mistake")
    endpoint, monitoring = settings.endpoint, settings.monitoring
    host = os.environ.get("HF_ENDPOINT", "").rstrip("/") or gather.HUGGING_FACE
    token = endpoint.hugging_face_token.get_secret_value()
    yield checks.model(gather.model(endpoint.model, token, host), endpoint.model, host)
    yield checks.chart(gather.chart(monitoring.chart_repository, monitoring.chart_version), monitoring)
    try:
        client = OvhClient(find_credentials(stack.config))
    except CredentialsError as error:
        yield problem("credentials", str(error), "docs/going-live.md says how to make some")
        return
    details = gather.details(client)
    yield checks.credentials(details)
    if not details.known:
        yield problem("project, offer, quotas", "were not asked for", "mend this first")
        return
    calls = rights.needed(monitoring.grafana_reserved_address)
    answers = gather.questions(client, settings, details, calls)
    yield from checks.everything(answers, settings, calls, identities)


def main() -> int:
    """Prints the findings about one stack."""
    parser = argparse.ArgumentParser(prog="python -m doctor", description=__doc__)
    parser.add_argument("stack")
    stack = parser.parse_args().stack
    try:
        findings = list(examine(stack))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    sys.stdout.write(f"{table(findings)}\n")
    return int(any(finding.level == "problem" for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
