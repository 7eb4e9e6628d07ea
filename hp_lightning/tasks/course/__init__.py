"""The sixteen steps of the course on a person's own model and corpus, as one self-contained HTML page."""
