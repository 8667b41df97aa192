"""The section "Where libraries disagree" of docs/methods.md: questions that libraries answer differently, measured."""
