"""The coordinator on a host, as the laptop talks to it."""
