"""A small HTTP server for people and probes: metrics, health, settings, budgets."""
