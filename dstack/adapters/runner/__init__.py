"""The runner on a host, as the laptop and a coordinator on that host talk to it."""
