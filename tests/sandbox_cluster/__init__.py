"""Tests of the sandbox's Kubernetes clusters."""
