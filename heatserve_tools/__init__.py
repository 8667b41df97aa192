"""The command `heatserve`: packaging, inspecting, serving and asking. None of it ships in an archive."""
