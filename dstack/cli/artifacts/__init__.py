"""Commands about what jobs left behind."""
