"""Objects in the cluster that more than one component makes."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as kubernetes


def secret(
    resource: str,
    name: str,
    namespace: pulumi.Input[str],
    data: Mapping[str, pulumi.Input[str]],
    *,
    type_: str = "Opaque",
    opts: pulumi.ResourceOptions,
) -> kubernetes.core.v1.Secret:
    """The Secret `name`; `resource` is what Pulumi calls it."""
    return kubernetes.core.v1.Secret(
        resource,
        metadata={"name": name, "namespace": namespace},
        type=type_,
        data={
            key: pulumi.Output.from_input(value).apply(lambda text: base64.b64encode(text.encode()).decode())
            for key, value in data.items()
        },
        opts=opts,
    )
