"""`python -m heatserve_tools` is the command `heatserve`."""

from heatserve_tools.command import main

main()
