"""Data, models, training, linear fits and statistics shared by experiments."""
