"""mergekit's YAML: read strictly, and carried out with our methods. See docs/mergekit.md."""
