"""Where secrets are kept on this machine."""
