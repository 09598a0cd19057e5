"""Use cases. They talk to ports only; what must survive crashes is written as pure steps (`effects.py`)."""
