"""One outside thing each; blind to one another."""
