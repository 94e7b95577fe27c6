"""Products with quantized weights in C++ and Triton, for where speed is the point."""
