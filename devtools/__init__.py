"""The tools that develop heatserve: benchmarks, hostile requests, generators of documents. They are not installed."""
