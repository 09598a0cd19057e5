"""One process in one project, below every face: settings, bucket, hosts and coordinators, opened at their first use."""
