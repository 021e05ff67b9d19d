"""Starts the plugin."""

from __future__ import annotations

from sandbox.plugins.ovh.plugin import OvhPlugin
from sandbox.plugins.serving import serve

serve(OvhPlugin())
