"""`python -m sandbox.plugins.kubernetes <engine address>`: serves the plugin until the engine goes away."""

from __future__ import annotations

from sandbox.plugins.kubernetes.plugin import KubernetesPlugin
from sandbox.plugins.serving import serve

serve(KubernetesPlugin())
