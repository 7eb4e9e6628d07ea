"""What the trainer calls while it trains."""
