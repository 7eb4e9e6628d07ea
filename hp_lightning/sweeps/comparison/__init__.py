"""Runs compared: which configuration is the best, by how much, and why."""
