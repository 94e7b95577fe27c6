"""The runner of the matrix: it knows no technique and no suite."""
