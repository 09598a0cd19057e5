"""One run in the hands of a coordinator, from its record to its summary."""
