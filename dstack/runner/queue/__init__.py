"""The queue of a host: tickets, slots, GPUs, and who may start."""
