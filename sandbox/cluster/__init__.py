"""Managed Kubernetes of the sandbox: an API server stand-in, its controllers, operator and chart."""
