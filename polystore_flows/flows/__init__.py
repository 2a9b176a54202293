"""Prefect for plates: blocks, tasks, flows and deployments over the registry of backends."""
