"""How are runs and shards kept in Google Cloud Storage?

Use `gs://BUCKET/FOLDER` in place of a local folder; this needs the extra `gcs`.
"""
