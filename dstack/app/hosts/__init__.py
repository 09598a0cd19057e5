"""The hosts of one coordinator: connections, silences, and the race for a slot."""
