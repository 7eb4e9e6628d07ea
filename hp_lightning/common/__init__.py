"""What every package shares: errors, messages, files, run folders, the machine."""
