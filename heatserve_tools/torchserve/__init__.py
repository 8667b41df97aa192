"""Starting a TorchServe, watching it and ending it."""
