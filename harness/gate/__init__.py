"""The gate: two runs judged, and the answer told to people, to CI and to forges."""
