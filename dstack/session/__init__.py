"""A process in a project, below every face: settings, bucket, hosts and coordinators, opened at their first use."""
