"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Nothing may depend on being fast: not one example, nor how examples are made.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
