"""The runner on a host, for the laptop and for a coordinator on the host."""
