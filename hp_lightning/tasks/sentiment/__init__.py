"""Sentiment read from a language model: from which words it expects after a text, or from a label it was finetuned."""
