"""A run in the hands of a coordinator, from the record to the summary."""
