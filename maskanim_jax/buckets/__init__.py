"""Runs and shards in Google Cloud Storage: `gs://BUCKET/FOLDER` in place of a local folder. Needs the extra `gcs`."""
