"""The protocol between coordinators, as pure steps: which job runs, who runs it, and when its result stands."""
