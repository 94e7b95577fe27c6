"""Libraries that compute attention, behind the family's interface."""
