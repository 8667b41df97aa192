"""Hostile requests by the thousand against a real server: `scripts/fuzz`."""
