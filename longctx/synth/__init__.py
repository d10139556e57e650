"""Post-training rows: questions over long contexts and long outputs, between the model calls."""
