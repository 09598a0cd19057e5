"""SSH connections by asyncssh."""
