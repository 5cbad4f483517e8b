"""What several experiments use: data, models, training, linear fits, statistics."""
