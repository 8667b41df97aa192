"""Hostile requests to a real server by the thousand: `scripts/fuzz`."""
