"""The host store: content by hash, code, and artifacts."""
