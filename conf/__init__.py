"""What a person chose to run; defaults live in the dataclasses, never here."""
