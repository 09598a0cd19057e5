"""A home, a bucket and the spool of a host as an earlier dstack left them."""
