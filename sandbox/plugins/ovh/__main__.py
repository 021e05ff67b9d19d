"""Starts the plugin."""

from __future__ import annotations

from sandbox.plugins.framework import serve
from sandbox.plugins.ovh.plugin import OvhPlugin

serve(OvhPlugin())
