"""Which weights a run keeps when its training, or all of its trainings, are done."""
