"""The dataclasses of every config, and the checks of their values."""
