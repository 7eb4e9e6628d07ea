"""Writers of TensorBoard's files."""
