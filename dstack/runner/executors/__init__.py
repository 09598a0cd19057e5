"""The ways of a host to run the commands of an attempt."""
