"""Real data and a vision backbone out of packages: one file per package, on top of those that the demo reads."""
