"""The tools that users run: the packager, the launcher of TorchServe and the demo. None of them ships in an archive."""
