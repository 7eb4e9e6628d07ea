"""From a CSV file to batches."""
