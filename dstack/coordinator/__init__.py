"""The coordinator for hosts: the use cases, wired for one host, with the standard library and obstore alone."""
