"""The contract: settings, requests, responses, errors, metrics, and the loop between them. Imports no ts."""
