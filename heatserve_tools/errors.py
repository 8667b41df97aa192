"""The error of the tools."""

from __future__ import annotations


class ToolError(Exception):
    """A tool cannot go on. The message is one sentence for its user; `detail` is for users who ask for more."""

    def __init__(self, sentence: str, detail: str = ""):
        super().__init__(sentence)
        self.detail = detail
