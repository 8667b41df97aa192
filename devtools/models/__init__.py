"""Classifiers of other projects, explained by themselves and compared with pytorch-grad-cam."""
