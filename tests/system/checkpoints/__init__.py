"""Training that is killed and resumed from checkpoints."""
