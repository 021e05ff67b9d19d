"""The programs that no Python package brings: Pulumi, Prometheus, promtool, Alertmanager, json_exporter."""

from sandbox.toolchain.chain import Found, Toolchain, ensure
from sandbox.toolchain.progress import ToolchainError

__all__ = ["Found", "Toolchain", "ToolchainError", "ensure"]
