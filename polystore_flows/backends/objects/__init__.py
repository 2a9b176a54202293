"""Objects in buckets through obstore: ``s3://bucket/key``, ``gs://bucket/key``, ``az://…``."""
