"""What the models compute: captions, embeddings, boxes."""
