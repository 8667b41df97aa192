"""A client for servers of heatserve: `Client(url, "lite0").explain("cat.jpg", method="smoothgrad", samples=50)`.

It talks to the server with the standard library. numpy is imported when a map is read, Pillow when a picture is. torch
is not needed. The command `heatserve explain` does the same from a shell.
"""

from __future__ import annotations

from .client import Client
from .errors import HeatserveError
from .requests import Picture
from .results import Box, Explanation, Prediction, Result
from .transport import AGAIN

__all__ = ["AGAIN", "Box", "Client", "Explanation", "HeatserveError", "Picture", "Prediction", "Result"]
