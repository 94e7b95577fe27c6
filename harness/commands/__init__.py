"""The commands of the front door, one module each: `add_arguments(parser)` and `main(options)`."""
