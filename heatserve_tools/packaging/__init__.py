"""Building archives for TorchServe, and their trial in a clean process."""
