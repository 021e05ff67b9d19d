"""Emulator of the OVHcloud API: AI Deploy, Managed Kubernetes, users, OpenStack, and what they cost."""

from sandbox.cloud.cloud import Cloud
from sandbox.cloud.settings import CloudSettings, Credentials, Delays, UpdateMode

__all__ = ["Cloud", "CloudSettings", "Credentials", "Delays", "UpdateMode"]
