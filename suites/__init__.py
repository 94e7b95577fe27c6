"""What is measured: one file a suite, the same for every technique of a family."""
