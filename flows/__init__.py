"""The dataflows, and their settings: wiring only."""
