"""The OpenAPI description of the endpoints, from the tables that the handler itself reads."""
