"""The laptop's side of the coordinator on a host: a client, and the shipped bytes."""
