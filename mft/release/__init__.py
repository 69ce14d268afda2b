"""What users download: the model card, the hashes that prove the files, the upload."""
