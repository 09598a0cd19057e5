"""S3, Google Cloud Storage and Azure Blob: a file for each kind, all by obstore."""
