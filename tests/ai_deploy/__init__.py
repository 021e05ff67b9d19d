"""Tests of components/ai_deploy."""
