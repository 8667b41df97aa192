"""TorchServe as a host of the core: its batches, metrics, modes and workers. No module here imports `ts`."""
