"""The two suites of eight real tasks: packages, data, experts, cells and tables."""
