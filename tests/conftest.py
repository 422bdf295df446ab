"""Settings that hold for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Machines are shared: that inputs were made slowly says nothing about the code.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
