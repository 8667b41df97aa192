"""The demonstration: one real model, three real photographs."""
