"""The programs that no Python package brings: Pulumi, Prometheus, promtool, Alertmanager."""

from sandbox.toolchain.chain import Found, Toolchain, ensure
from sandbox.toolchain.plugins import install_plugins
from sandbox.toolchain.progress import ToolchainError

__all__ = ["Found", "Toolchain", "ToolchainError", "ensure", "install_plugins"]
