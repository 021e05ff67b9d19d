"""`python -m sandbox.plugins.kubernetes <engine address>`: serves the plugin until the engine goes away."""

from __future__ import annotations

from sandbox.plugins.framework import serve
from sandbox.plugins.kubernetes.plugin import KubernetesPlugin

serve(KubernetesPlugin())
