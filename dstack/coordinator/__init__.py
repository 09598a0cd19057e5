"""The coordinator as it is shipped to hosts: the use cases, wired for one host; standard library and obstore only."""
