"""Runs beside each other: which configuration is the best, by how much, and why."""
