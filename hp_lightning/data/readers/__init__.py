"""From a file to rows: archives, encodings, delimiters, columns, Parquet."""
