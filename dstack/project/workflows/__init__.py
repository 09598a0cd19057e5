"""`workflows.yaml` and `variables.yaml`: from nodes to workflows with values."""
