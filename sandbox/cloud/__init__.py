"""Emulator of the OVHcloud API: AI Deploy, Managed Kubernetes, users, OpenStack, and what they cost."""
