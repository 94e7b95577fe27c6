"""Attention in C++ and Triton, for where speed is the point."""
