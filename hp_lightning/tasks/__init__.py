"""What uses a trained model."""
