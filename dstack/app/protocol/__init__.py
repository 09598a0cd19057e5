"""The protocol between coordinators, as pure steps: the choice of jobs and of their runners, and when a result
stands."""
