"""The calls of OVHcloud's API that the program makes, and the rights that they need."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

IAM_PREFIX = "publicCloudProject:apiovh:"
"""Of the names of IAM actions on a Public Cloud project."""


@dataclass(frozen=True)
class Call:
    """A call below `/cloud/project/<id>`, and the IAM action that allows it."""

    method: str
    path: str
    """With `{id}` for the ids in it."""
    action: str
    """Without `IAM_PREFIX`."""


CALLS: Mapping[str, tuple[Call, ...]] = {
    "App": (
        Call("GET", "/ai/app", "ai/app/get"),
        Call("GET", "/ai/app/{id}", "ai/app/get"),
        Call("POST", "/ai/app", "ai/app/create"),
        Call("PUT", "/ai/app/{id}", "ai/app/edit"),
        Call("DELETE", "/ai/app/{id}", "ai/app/delete"),
        Call("PUT", "/ai/app/{id}/start", "ai/app/start"),
        Call("PUT", "/ai/app/{id}/stop", "ai/app/stop"),
        Call("PUT", "/ai/app/{id}/scalingstrategy", "ai/app/scalingstrategy/edit"),
        Call("PUT", "/ai/app/{id}/label", "ai/app/label/edit"),
        Call("GET", "/ai/app/{id}/log", "ai/app/log/get"),
    ),
    "Tokens": (
        Call("GET", "/ai/token", "ai/token/get"),
        Call("GET", "/ai/token/{id}", "ai/token/get"),
        Call("POST", "/ai/token", "ai/token/create"),
        Call("DELETE", "/ai/token/{id}", "ai/token/delete"),
    ),
    "Cluster": (
        Call("GET", "/kube/{id}", "kube/get"),
        Call("POST", "/kube", "kube/create"),
        Call("PUT", "/kube/{id}", "kube/edit"),
        Call("DELETE", "/kube/{id}", "kube/delete"),
        Call("POST", "/kube/{id}/kubeconfig", "kube/kubeconfig/create"),
        Call("PUT", "/kube/{id}/updatePolicy", "kube/updatePolicy/edit"),
        Call("POST", "/kube/{id}/update", "kube/update/create"),
        Call("GET", "/kube/{id}/ipRestrictions", "kube/ipRestrictions/get"),
        Call("PUT", "/kube/{id}/ipRestrictions", "kube/ipRestrictions/edit"),
    ),
    "Nodes": (
        Call("GET", "/kube/{id}/nodepool/{id}", "kube/nodepool/get"),
        Call("POST", "/kube/{id}/nodepool", "kube/nodepool/create"),
        Call("PUT", "/kube/{id}/nodepool/{id}", "kube/nodepool/edit"),
        Call("DELETE", "/kube/{id}/nodepool/{id}", "kube/nodepool/delete"),
    ),
    "OpenStack user": (
        Call("GET", "/user/{id}", "user/get"),
        Call("POST", "/user", "user/create"),
        Call("DELETE", "/user/{id}", "user/delete"),
        Call("GET", "/user/{id}/openrc", "user/openrc/get"),
        Call("GET", "/role", "role/get"),
    ),
}
"""What the program calls, by what it is for; the last is for a reserved address alone."""

OWN_ACTIONS = (
    "get",
    "ai/authorization/get",
    "ai/capabilities/quota/get",
    "ai/capabilities/region/get",
    "ai/capabilities/region/flavor/get",
    "capabilities/kube/flavors/get",
    "capabilities/kube/regions/get",
    "quota/get",
    "vrack/get",
)
"""Actions of the doctor's own calls; without one of them its finding is unknown, and nothing else happens."""


def needed(reserved_address: bool) -> list[Call]:
    """The calls of a stack, with or without a reserved address."""
    return [
        call
        for purpose, calls in CALLS.items()
        if reserved_address or purpose != "OpenStack user"
        for call in calls
    ]


def refused(
    calls: Iterable[Call], allowed: Collection[Mapping[str, Any]], service_name: str
) -> Iterator[Call]:
    """The calls that none of a consumer key's rules allows.

    A rule is `{method, path}` as in `GET /auth/details` (`allowedRoutes`); `*` in a path stands for anything.
    """
    patterns = [
        (rule["method"], re.compile(".*".join(map(re.escape, str(rule["path"]).split("*")))))
        for rule in allowed
    ]
    for call in calls:
        path = f"/cloud/project/{service_name}{call.path}"
        if not any(method == call.method and pattern.fullmatch(path) for method, pattern in patterns):
            yield call
