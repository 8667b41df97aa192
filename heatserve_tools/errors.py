"""What the tools say when they cannot go on."""

from __future__ import annotations


class ToolError(Exception):
    """One sentence for the person at the keyboard. `detail` is for those who ask for more."""

    def __init__(self, sentence: str, detail: str = ""):
        super().__init__(sentence)
        self.detail = detail
