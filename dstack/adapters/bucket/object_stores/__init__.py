"""S3, Google Cloud Storage and Azure Blob: one file for each kind, all by obstore."""
